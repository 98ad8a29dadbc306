{{/* (list $ NAME EVENTS WEIGHT): what makes an object part of a hook. The last run's objects go when the next begins. */}}
{{- define "larder.hook" -}}
{{- $ := index . 0 -}}
name: {{ include "larder.fullname" $ }}-{{ index . 1 }}
labels:
  {{- include "larder.labels" (list $ (index . 1)) | nindent 2 }}
annotations:
  helm.sh/hook: {{ index . 2 }}
  helm.sh/hook-weight: {{ index . 3 | quote }}
  helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end -}}

{{/* (list $ NAME EVENTS ARGS): a Job that runs the controller's program once, and its account. */}}
{{- define "larder.job" -}}
{{- $ := index . 0 -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  {{- include "larder.hook" (list $ (index . 1) (index . 2) -5) | nindent 2 }}
  namespace: {{ $.Release.Namespace }}
---
apiVersion: batch/v1
kind: Job
metadata:
  {{- include "larder.hook" (list $ (index . 1) (index . 2) 0) | nindent 2 }}
  namespace: {{ $.Release.Namespace }}
spec:
  backoffLimit: 2
  template:
    metadata:
      labels:
        {{- include "larder.labels" (list $ (index . 1)) | nindent 8 }}
    spec:
      restartPolicy: Never
      serviceAccountName: {{ include "larder.fullname" $ }}-{{ index . 1 }}
      {{- with include "larder.pullSecrets" $ }}
      {{- . | nindent 6 }}
      {{- end }}
      securityContext:
        {{- include "larder.podSecurity" $ | nindent 8 }}
      containers:
        - name: {{ index . 1 }}
          image: {{ include "larder.image" (list $ "controller") }}
          imagePullPolicy: {{ $.Values.images.pullPolicy }}
          command: [/larder-controller]
          args:
            {{- toYaml (index . 3) | nindent 12 }}
          resources:
            {{- toYaml $.Values.workloads.hooks.resources | nindent 12 }}
          securityContext:
            {{- include "larder.containerSecurity" $ | nindent 12 }}
      {{- with $.Values.workloads.hooks.nodeSelector }}
      nodeSelector:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $.Values.workloads.hooks.tolerations }}
      tolerations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
{{- end -}}
