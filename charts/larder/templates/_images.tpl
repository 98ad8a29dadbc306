{{/* (list $ IMAGE): one image as the kubelet takes it. */}}
{{- define "larder.image" -}}
{{- $ := index . 0 -}}
{{- $image := index $.Values.images (index . 1) -}}
{{- $.Values.images.registry | default $image.registry }}/{{ $image.repository }}
{{- if or $image.tag (not $image.digest) }}:{{ $image.tag | default $.Chart.AppVersion }}{{ end }}
{{- with $image.digest }}@{{ . }}{{ end }}
{{- end -}}

{{- define "larder.pullSecrets" -}}
{{- with .Values.images.pullSecrets -}}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- end -}}
