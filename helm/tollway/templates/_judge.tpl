{{/* Values of the right type that cannot work together. Each sentence tells what to do. */}}
{{- define "tollway.judge" -}}
{{- $v := .Values }}
{{- if eq $v.database.type "sqlite" }}
  {{- if gt (int $v.replicaCount) 1 }}
    {{- fail (printf "replicaCount is %d, and SQLite serves one replica: set replicaCount to 1, or database.type to postgres and database.existingSecret to a secret with its address." (int $v.replicaCount)) }}
  {{- end }}
  {{- if $v.autoscaling.enabled }}
    {{- fail "autoscaling.enabled is true, and SQLite serves one replica: set autoscaling.enabled to false, or database.type to postgres and database.existingSecret to a secret with its address." }}
  {{- end }}
{{- else }}
  {{- if not $v.database.existingSecret }}
    {{- fail "database.type is postgres and database.existingSecret is empty: make a secret with `kubectl create secret generic tollway-database --from-literal=url=postgres://USER:PASSWORD@HOST/NAME` and set database.existingSecret to tollway-database." }}
  {{- end }}
{{- end }}
{{- if and $v.autoscaling.enabled (gt (int $v.autoscaling.minReplicas) (int $v.autoscaling.maxReplicas)) }}
  {{- fail "autoscaling.minReplicas is more than autoscaling.maxReplicas: set it to at most that." }}
{{- end }}
{{- if and $v.autoscaling.enabled (not (or $v.autoscaling.targetCPUUtilizationPercentage $v.autoscaling.targetMemoryUtilizationPercentage $v.autoscaling.metrics)) }}
  {{- fail "autoscaling.enabled is true and nothing is measured: set autoscaling.targetCPUUtilizationPercentage, autoscaling.targetMemoryUtilizationPercentage or autoscaling.metrics." }}
{{- end }}
{{- $budget := $v.podDisruptionBudget }}
{{- if and $budget.enabled (not (kindIs "invalid" $budget.minAvailable)) (not (kindIs "invalid" $budget.maxUnavailable)) }}
  {{- fail "podDisruptionBudget.minAvailable and podDisruptionBudget.maxUnavailable are both set: set one of them to null." }}
{{- end }}
{{- if and $budget.enabled (kindIs "invalid" $budget.minAvailable) (kindIs "invalid" $budget.maxUnavailable) }}
  {{- fail "podDisruptionBudget has neither minAvailable nor maxUnavailable: set one of them, or podDisruptionBudget.enabled to false." }}
{{- end }}
{{- if and $v.webhook.url (not $v.webhook.existingSecret) }}
  {{- fail "webhook.url is set and webhook.existingSecret is empty: make a secret with `kubectl create secret generic tollway-webhook --from-literal=webhook-secret=whsec_$(openssl rand -base64 24)` and set webhook.existingSecret to tollway-webhook." }}
{{- end }}
{{- if and $v.ingress.enabled (not $v.ingress.hosts) }}
  {{- fail "ingress.enabled is true and ingress.hosts is empty: name a host, as in ingress.hosts[0].host=tollway.example.com." }}
{{- end }}
{{- if and $v.httpRoute.enabled (not $v.httpRoute.parentRefs) }}
  {{- fail "httpRoute.enabled is true and httpRoute.parentRefs is empty: name the Gateway, as in httpRoute.parentRefs[0].name=my-gateway." }}
{{- end }}
{{- if not (kindIs "invalid" $v.terminationGracePeriodSeconds) }}
  {{- $needed := add $v.drain.preStopSeconds $v.drain.graceSeconds 25 }}
  {{- if lt (int $v.terminationGracePeriodSeconds) (int $needed) }}
    {{- fail (printf "terminationGracePeriodSeconds is %d, and the drain needs %d (drain.preStopSeconds, drain.graceSeconds and 25 for the last writes): set it to that or to null, or set drain.graceSeconds to less." (int $v.terminationGracePeriodSeconds) $needed) }}
  {{- end }}
{{- end }}
{{- include "tollway.judgeConfig" . }}
{{- end }}

{{/* Settings that stand elsewhere in the values: in `config` they would be lost, or be seen by all. */}}
{{- define "tollway.judgeConfig" -}}
{{- $elsewhere := dict
  "master_key" "masterKey.existingSecret"
  "database_url" "database.existingSecret"
  "data_dir" "persistence, whose volume is at /data"
  "admin.key" "admin.existingSecret"
  "oidc.client_secret" "oidc.existingSecret"
  "admin.listen" "service.adminPort"
  "server.listen" "service.port"
  "server.ops_listen" "service.metricsPort"
  "server.drain_delay" "drain.preStopSeconds"
  "server.drain_grace" "drain.graceSeconds"
  "webhook.url" "webhook.url of the chart"
  "webhook.secret" "webhook.existingSecret"
  "otlp.endpoint" "tracing.endpoint"
  "otlp.protocol" "tracing.protocol"
  "otlp.sample_ratio" "tracing.sampleRatio"
  "otlp.headers" "tracing.existingSecret"
  "backend.proxy" "extraEnv, with TOLLWAY_BACKEND__PROXY from a secret" }}
{{- range $section, $settings := .Values.config }}
  {{- $names := ternary (list $section) (list) (hasKey $elsewhere $section) }}
  {{- if kindIs "map" $settings }}
    {{- range $key := keys $settings }}{{ $names = append $names (printf "%s.%s" $section $key) }}{{ end }}
  {{- end }}
  {{- range $name := $names }}
    {{- if hasKey $elsewhere $name }}
      {{- fail (printf "config holds %s, which does not belong there: use %s." $name (get $elsewhere $name)) }}
    {{- end }}
  {{- end }}
{{- end }}
{{- end }}
