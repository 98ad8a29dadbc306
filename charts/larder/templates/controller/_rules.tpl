{{- define "larder.subject" -}}
{kind: ServiceAccount, name: {{ include "larder.controller" . }}, namespace: {{ .Release.Namespace }}}
{{- end -}}

{{/* (list $ NAMESPACE NAME RULES): a Role of the controller and its binding. */}}
{{- define "larder.role" -}}
{{- $ := index . 0 -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ index . 2 }}
  namespace: {{ index . 1 }}
  labels:
    {{- include "larder.labels" (list $ "controller") | nindent 4 }}
rules:
  {{- index . 3 | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ index . 2 }}
  namespace: {{ index . 1 }}
  labels:
    {{- include "larder.labels" (list $ "controller") | nindent 4 }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: {{ index . 2 }}}
subjects:
  - {{ include "larder.subject" $ }}
{{- end -}}

{{/* The children of a Registry and of a RegistryGateway, in their namespace. */}}
{{- define "larder.registryRules" -}}
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, create, patch, delete]
- apiGroups: [""]
  resources: [services, configmaps, secrets, persistentvolumeclaims]
  verbs: [get, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [ingresses]
  verbs: [get, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, create, patch, delete]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [list]
- apiGroups: [cert-manager.io]
  resources: [certificates]
  verbs: [get, create, patch, delete]
- apiGroups: [objectstorage.k8s.io]
  resources: [bucketclaims, bucketaccesses]
  verbs: [get, create, patch, delete]
{{- end -}}

{{- define "larder.agentRules" -}}
- apiGroups: [apps]
  resources: [daemonsets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [secrets, serviceaccounts]
  verbs: [get, create, patch, delete]
{{- end -}}

{{- define "larder.ownRules" -}}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [create]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [larder-controller]
  verbs: [get, update]
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, create]
- apiGroups: [""]
  resources: [configmaps]
  resourceNames: [larder-defaults]
  verbs: [update]
- apiGroups: [""]
  resources: [secrets]
  verbs: [get]
- apiGroups: [""]
  resources: [services]
  verbs: [get]
{{- end -}}
