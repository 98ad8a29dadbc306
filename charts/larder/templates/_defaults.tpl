{{/* The NodeCache and the Caches of the values, as documents. */}}
{{- define "larder.defaults" -}}
{{- if .Values.nodeCache.create -}}
---
apiVersion: registry-operator.dev/v1alpha1
kind: NodeCache
metadata:
  name: {{ .Values.nodeCache.name }}
spec:
  {{- toYaml .Values.nodeCache.spec | nindent 2 }}
{{ end -}}
{{- range .Values.caches -}}
---
apiVersion: registry-operator.dev/v1alpha1
kind: Cache
metadata:
  name: {{ .name }}
  {{- with .labels }}
  labels:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- toYaml .spec | nindent 2 }}
{{ end -}}
{{- end -}}
