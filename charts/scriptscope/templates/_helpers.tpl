{{- define "scriptscope.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "scriptscope.agentName" -}}
{{- printf "%s-agent" (include "scriptscope.fullname" .) -}}
{{- end -}}

{{/* Labels of every object. Not the label app.kubernetes.io/managed-by=scriptscope: that is for what the operator makes. */}}
{{- define "scriptscope.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: scriptscope
{{ include "scriptscope.selectorLabels" . }}
{{- end -}}

{{- define "scriptscope.selectorLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "scriptscope.image" -}}
{{- .Values.image.repository -}}
{{- with .Values.image.digest -}}@{{ . }}{{- else -}}:{{ .Values.image.tag | default .Chart.AppVersion }}{{- end -}}
{{- end -}}

{{- define "scriptscope.claimName" -}}
{{- .Values.persistence.existingClaim | default (include "scriptscope.fullname" .) -}}
{{- end -}}

{{- define "scriptscope.loggingName" -}}
{{- printf "%s-logging" (include "scriptscope.fullname" .) -}}
{{- end -}}

{{- define "scriptscope.logEnv" -}}
# Followed: a change of the ConfigMap counts without a restart.
- name: SCRIPTSCOPE_LOG_FROM
  value: /etc/scriptscope/logging/level
- name: SCRIPTSCOPE_LOG_FORMAT
  value: {{ .Values.log.format | quote }}
{{- end -}}

{{- define "scriptscope.logMount" -}}
- {name: logging, mountPath: /etc/scriptscope/logging, readOnly: true}
{{- end -}}

{{- define "scriptscope.logVolume" -}}
- name: logging
  configMap: {name: {{ include "scriptscope.loggingName" . }}, optional: true}
{{- end -}}

{{/* What the operator does in the namespaces it watches. */}}
{{- define "scriptscope.operatorRules" -}}
- apiGroups: [scriptscope.dev]
  resources: [customscripts, scriptexports]
  verbs: [get, list, watch]
- apiGroups: [scriptscope.dev]
  resources: [customscripts/status, scriptexports/status]
  verbs: [patch]
- apiGroups: [scriptscope.dev]
  resources: [scriptexports] # spec.ttlAfterFinished, spec.schedule
  verbs: [create, delete]
{{- if .Values.exports.readSecrets }}
- apiGroups: [""]
  resources: [secrets] # spec.destination.s3.credentialsSecretRef
  verbs: [get]
{{- end }}
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [get, create, patch, delete]
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, list, watch, create, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
{{- if eq .Values.collection "api" }}
- apiGroups: [""]
  resources: [pods/log]
  verbs: [get]
{{- end }}
- apiGroups: [apps]
  resources: [replicasets]
  verbs: [get, list]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}

{{/* "true" where the store is Postgres. */}}
{{- define "scriptscope.postgres" -}}
{{- if or .Values.database.existingSecret.name (hasPrefix "postgres" .Values.database.url) }}true{{ end -}}
{{- end -}}

{{/* "true" where the old and the new operator may be there at the same time, with what each has mounted. */}}
{{- define "scriptscope.rolling" -}}
{{- if and (include "scriptscope.postgres" .) (or (not .Values.persistence.enabled) (eq .Values.persistence.accessMode "ReadWriteMany")) }}true{{ end -}}
{{- end -}}

{{/* What can not work is refused before anything is installed. */}}
{{- define "scriptscope.check" -}}
{{- $replicas := int .Values.operator.replicas -}}
{{- if and (gt $replicas 1) (not (include "scriptscope.postgres" .)) }}
{{- fail "operator.replicas: more than one needs Postgres (database.existingSecret.name or database.url); SQLite has one writer" }}
{{- end }}
{{- if and (gt $replicas 1) (not (include "scriptscope.rolling" .)) }}
{{- fail "operator.replicas: more than one needs persistence.accessMode=ReadWriteMany, or persistence.enabled=false and exports to an object store" }}
{{- end }}
{{- if and (gt $replicas 1) (eq .Values.collection "api") }}
{{- fail "operator.replicas: more than one needs collection=agent; each operator would follow every log through the API server" }}
{{- end }}
{{- if and (eq .Values.persistence.accessMode "ReadWriteMany") .Values.persistence.enabled (not (include "scriptscope.postgres" .)) }}
{{- fail "persistence.accessMode: SQLite needs a volume of one node, ReadWriteOnce or ReadWriteOncePod" }}
{{- end }}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) }}
{{- fail "ingress.hosts: name at least one host, or set ingress.enabled=false" }}
{{- end }}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) }}
{{- fail "httpRoute.parentRefs: name at least one Gateway, or set httpRoute.enabled=false" }}
{{- end }}
{{- end -}}

{{/* Wherever they are: some clusters have them on each node, at a link-local address. */}}
{{- define "scriptscope.nameServers" -}}
# Name servers.
- ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
    - {port: 5353, protocol: UDP} # those of OpenShift
    - {port: 5353, protocol: TCP}
{{- end -}}
