{{/* What the gateway is told, and what it needs to open the database: for `serve` and `migrate`. */}}
{{- define "tollway.environment" -}}
- name: TOLLWAY_CONFIG
  value: /etc/tollway/tollway.toml
- name: TOLLWAY_DATA_DIR
  value: /data
- name: TOLLWAY_LOG__FORMAT
  value: json
- name: TOLLWAY_MASTER_KEY_FILE
  value: /run/secrets/tollway/master-key
{{- with .Values.database }}
{{- if eq .type "postgres" }}
{{- if .host }}
- name: TOLLWAY_DATABASE_URL
  value: {{ printf "postgres://%s@%s:%d/%s?sslmode=%s" (urlquery .user) .host (int .port) (urlquery .name) .sslMode | quote }}
- name: PGPASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ .existingSecret }}
      key: {{ .passwordKey }}
{{- else }}
- name: TOLLWAY_DATABASE_URL_FILE
  value: /run/secrets/tollway/database-url
{{- end }}
{{- end }}
{{- end }}
- name: TOLLWAY_SERVER__LISTEN
  value: 0.0.0.0:8787
- name: TOLLWAY_ADMIN__LISTEN
  value: 0.0.0.0:8788
- name: TOLLWAY_SERVER__OPS_LISTEN
  value: 0.0.0.0:9464
- name: TOLLWAY_SERVER__DRAIN_GRACE
  value: {{ printf "%ds" (int .Values.drain.graceSeconds) }}
{{- if .Values.admin.existingSecret }}
- name: TOLLWAY_ADMIN__KEY_FILE
  value: /run/secrets/tollway/admin-key
{{- end }}
{{- if .Values.oidc.existingSecret }}
- name: TOLLWAY_OIDC__CLIENT_SECRET_FILE
  value: /run/secrets/tollway/oidc-client-secret
{{- end }}
{{- with .Values.webhook.url }}
- name: TOLLWAY_WEBHOOK__URL
  value: {{ . | quote }}
- name: TOLLWAY_WEBHOOK__SECRET_FILE
  value: /run/secrets/tollway/webhook-secret
{{- end }}
{{- with .Values.tracing }}
{{- if .endpoint }}
- name: TOLLWAY_OTLP__ENDPOINT
  value: {{ .endpoint | quote }}
- name: TOLLWAY_OTLP__PROTOCOL
  value: {{ .protocol }}
- name: TOLLWAY_OTLP__SAMPLE_RATIO
  value: {{ .sampleRatio | quote }}
{{- if .existingSecret }}
- name: TOLLWAY_OTLP__HEADERS_FILE
  value: /run/secrets/tollway/otlp-headers
{{- end }}
{{- end }}
{{- end }}
- name: POD_NAME
  valueFrom:
    fieldRef: {fieldPath: metadata.name}
- name: POD_NAMESPACE
  valueFrom:
    fieldRef: {fieldPath: metadata.namespace}
- name: NODE_NAME
  valueFrom:
    fieldRef: {fieldPath: spec.nodeName}
- name: OTEL_RESOURCE_ATTRIBUTES
  value: service.instance.id=$(POD_NAME),k8s.pod.name=$(POD_NAME),k8s.namespace.name=$(POD_NAMESPACE),k8s.node.name=$(NODE_NAME)
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "tollway.mounts" -}}
- {name: data, mountPath: /data}
- {name: tmp, mountPath: /tmp}
- {name: config, mountPath: /etc/tollway, readOnly: true}
- {name: secrets, mountPath: /run/secrets/tollway, readOnly: true}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "tollway.volumes" -}}
- name: data
{{- if include "tollway.isPostgres" . }}
  emptyDir: {sizeLimit: 64Mi}
{{- else if .Values.persistence.enabled }}
  persistentVolumeClaim:
    claimName: {{ default (printf "%s-data" (include "tollway.fullname" .)) .Values.persistence.existingClaim }}
{{- else }}
  emptyDir: {}
{{- end }}
- name: tmp
  emptyDir: {sizeLimit: 64Mi}
- name: config
  configMap:
    name: {{ include "tollway.fullname" . }}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      - secret:
          name: {{ include "tollway.masterKeySecret" . }}
          items: [{key: {{ .Values.masterKey.existingSecretKey }}, path: master-key}]
      {{- with .Values.database }}
      {{- if and (eq .type "postgres") (not .host) }}
      - secret:
          name: {{ .existingSecret }}
          items: [{key: {{ .urlKey }}, path: database-url}]
      {{- end }}
      {{- end }}
      {{- with .Values.admin }}
      {{- if .existingSecret }}
      - secret:
          name: {{ .existingSecret }}
          items: [{key: {{ .existingSecretKey }}, path: admin-key}]
      {{- end }}
      {{- end }}
      {{- with .Values.oidc }}
      {{- if .existingSecret }}
      - secret:
          name: {{ .existingSecret }}
          items: [{key: {{ .existingSecretKey }}, path: oidc-client-secret}]
      {{- end }}
      {{- end }}
      {{- with .Values.webhook }}
      {{- if .url }}
      - secret:
          name: {{ .existingSecret }}
          items: [{key: {{ .existingSecretKey }}, path: webhook-secret}]
      {{- end }}
      {{- end }}
      {{- with .Values.tracing }}
      {{- if and .endpoint .existingSecret }}
      - secret:
          name: {{ .existingSecret }}
          items: [{key: {{ .existingSecretKey }}, path: otlp-headers}]
      {{- end }}
      {{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}
