{{/* The pod, the same for the Deployment and the StatefulSet. */}}
{{- define "tollway.pod" -}}
metadata:
  labels:
    {{- include "tollway.selectorLabels" . | nindent 4 }}
    app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
    app.kubernetes.io/part-of: tollway
    {{- with .Values.commonLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    # A changed configuration is a new pod. A changed secret is one too where the chart can see it.
    checksum/config: {{ include "tollway.config" . | sha256sum }}
    checksum/secrets: {{ include "tollway.secretVersions" . | sha256sum }}
    {{- with merge (dict) .Values.podAnnotations .Values.commonAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "tollway.serviceAccountName" . }}
  automountServiceAccountToken: {{ .Values.automountServiceAccountToken }}
  # Variables of the namespace's services could be taken for settings.
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ include "tollway.terminationGrace" . }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    {{- toYaml .Values.podSecurityContext | nindent 4 }}
  {{- if or .Values.migration.enabled .Values.extraInitContainers }}
  initContainers:
    {{- if .Values.migration.enabled }}
    - name: migrate
      image: {{ include "tollway.image" . }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args: [migrate]
      securityContext:
        {{- toYaml .Values.securityContext | nindent 8 }}
      env:
        {{- include "tollway.environment" . | nindent 8 }}
      {{- with .Values.extraEnvFrom }}
      envFrom:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      volumeMounts:
        {{- include "tollway.mounts" . | nindent 8 }}
      resources:
        {{- toYaml .Values.migration.resources | nindent 8 }}
    {{- end }}
    {{- with .Values.extraInitContainers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- end }}
  containers:
    - name: tollway
      image: {{ include "tollway.image" . }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args: [serve]
      securityContext:
        {{- toYaml .Values.securityContext | nindent 8 }}
      env:
        {{- include "tollway.environment" . | nindent 8 }}
      {{- with .Values.extraEnvFrom }}
      envFrom:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      ports:
        - {name: http, containerPort: 8787, protocol: TCP}
        - {name: admin, containerPort: 8788, protocol: TCP}
        - {name: ops, containerPort: 9464, protocol: TCP}
      {{- if gt (int .Values.drain.preStopSeconds) 0 }}
      lifecycle:
        # Until every proxy knows that this pod goes, it serves. SIGTERM comes after.
        preStop:
          sleep: {seconds: {{ int .Values.drain.preStopSeconds }}}
      {{- end }}
      {{- range $probe := list "startupProbe" "livenessProbe" "readinessProbe" }}
      {{- with index $.Values $probe }}
      {{ $probe }}:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- end }}
      volumeMounts:
        {{- include "tollway.mounts" . | nindent 8 }}
      resources:
        {{- toYaml .Values.resources | nindent 8 }}
    {{- with .Values.extraContainers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  volumes:
    {{- include "tollway.volumes" . | nindent 4 }}
  {{- include "tollway.placement" . | nindent 2 }}
{{- end }}

{{/* Where pods run. */}}
{{- define "tollway.placement" -}}
{{- if .Values.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- toYaml .Values.topologySpreadConstraints | nindent 2 }}
{{- else if include "tollway.isPostgres" . }}
topologySpreadConstraints:
  {{- range $key := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ $key }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "tollway.selectorLabels" $ | nindent 8 }}
    matchLabelKeys: [pod-template-hash]
  {{- end }}
{{- end }}
{{- range $field := list "affinity" "nodeSelector" "tolerations" "hostAliases" "dnsConfig" }}
{{- with index $.Values $field }}
{{ $field }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- range $field := list "priorityClassName" "runtimeClassName" "dnsPolicy" }}
{{- with index $.Values $field }}
{{ $field }}: {{ . }}
{{- end }}
{{- end }}
{{- end }}

{{/* The versions of the given secrets that the pod reads, where there is a cluster to ask. */}}
{{- define "tollway.secretVersions" -}}
{{- $names := list .Values.masterKey.existingSecret .Values.database.existingSecret .Values.admin.existingSecret .Values.oidc.existingSecret .Values.webhook.existingSecret .Values.tracing.existingSecret }}
{{- range $name := compact $names | uniq }}
{{- $secret := lookup "v1" "Secret" $.Release.Namespace $name }}
{{ $name }}={{ dig "data" dict $secret | toJson | sha256sum }}
{{- end }}
{{- end }}
