{{/* What the Pod Security level `restricted` asks of a pod and of a container. */}}

{{- define "larder.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "larder.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/*
The controller's flags. Those of workloads.controller.args come last and replace the chart's of the same name;
`-flag` is read as `--flag`.
*/}}
{{- define "larder.controllerArgs" -}}
{{- $extra := list -}}
{{- $names := list -}}
{{- range .Values.workloads.controller.args -}}
{{- $flag := printf "--%s" (. | trimPrefix "-" | trimPrefix "-") -}}
{{- $extra = append $extra $flag -}}
{{- $names = append $names (regexFind "^[^=]+" $flag) -}}
{{- end -}}
{{- $flags := list
  (printf "--namespace=%s" .Release.Namespace)
  (printf "--agent-namespace=%s" .Values.agents.namespace.name)
  (printf "--service=%s" (include "larder.controller" .))
  "--bind-address=:8080"
  "--metrics-bind-address=:8443"
  "--health-bind-address=:8081"
  (printf "--kube-api-qps=%v" .Values.controller.kubeApiQps)
  (printf "--kube-api-burst=%v" .Values.controller.kubeApiBurst)
  (printf "--log-format=%s" .Values.controller.logFormat)
  (printf "--log-level=%s" .Values.controller.logLevel)
  (printf "--agent-image=%s" (include "larder.image" (list . "agent")))
  (printf "--gateway-image=%s" (include "larder.image" (list . "gateway")))
  (printf "--registry-image=%s" (include "larder.image" (list . "distribution")))
  (printf "--image-pull-policy=%s" .Values.images.pullPolicy)
  (printf "--priority-class=%s" .Values.agents.priorityClassName)
  "--defaults=/etc/larder/defaults.yaml"
-}}
{{- range .Values.images.pullSecrets -}}
{{- $flags = append $flags (printf "--image-pull-secret=%s" .) -}}
{{- end -}}
- run
{{- range $flags }}
{{- if not (has (regexFind "^[^=]+" .) $names) }}
- {{ . | quote }}
{{- end }}
{{- end }}
{{- range $extra }}
- {{ . | quote }}
{{- end }}
{{- end -}}
