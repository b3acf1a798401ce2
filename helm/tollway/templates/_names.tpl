{{- define "tollway.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* Room is left for the longest ending, -master-key. */}}
{{- define "tollway.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- $name := include "tollway.name" . }}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* What never changes: it selects pods. */}}
{{- define "tollway.selectorLabels" -}}
app.kubernetes.io/name: {{ include "tollway.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: gateway
{{- end }}

{{- define "tollway.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/name: {{ include "tollway.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: tollway
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The head of an object's metadata: (list $ "-suffix" labels annotations namespace). */}}
{{- define "tollway.metadata" -}}
{{- $root := index . 0 }}
{{- $labels := index . 2 }}
{{- $annotations := merge (dict) (index . 3) $root.Values.commonAnnotations -}}
name: {{ include "tollway.fullname" $root }}{{ index . 1 }}
namespace: {{ default $root.Release.Namespace (index . 4) }}
labels:
  {{- include "tollway.labels" $root | nindent 2 }}
  {{- with $labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "tollway.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "tollway.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "tollway.image" -}}
{{- with .Values.image }}
{{- $name := ternary (printf "%s/%s" .registry .repository) .repository (ne .registry "") }}
{{- if .digest }}
{{- printf "%s@%s" $name .digest }}
{{- else }}
{{- printf "%s:%s" $name (default $.Chart.AppVersion .tag) }}
{{- end }}
{{- end }}
{{- end }}

{{- define "tollway.masterKeySecret" -}}
{{- default (printf "%s-master-key" (include "tollway.fullname" .)) .Values.masterKey.existingSecret }}
{{- end }}

{{- define "tollway.isPostgres" -}}
{{- if eq .Values.database.type "postgres" }}yes{{ end }}
{{- end }}

{{/* What a pod needs to end in order. The gateway takes up to 21 seconds for its last writes. */}}
{{- define "tollway.terminationGrace" -}}
{{- $needed := add .Values.drain.preStopSeconds .Values.drain.graceSeconds 25 }}
{{- default $needed .Values.terminationGracePeriodSeconds }}
{{- end }}

{{/* Whether what is `auto` is wanted: (list $ enabled). It is where the Prometheus operator is. */}}
{{- define "tollway.wanted" -}}
{{- $enabled := index . 1 | toString }}
{{- $operator := (index . 0).Capabilities.APIVersions.Has "monitoring.coreos.com/v1" }}
{{- if or (eq $enabled "true") (and (eq $enabled "auto") $operator) }}yes{{ end }}
{{- end }}
