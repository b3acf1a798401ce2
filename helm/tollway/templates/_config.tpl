{{/* The configuration file, as TOML. Numbers stay whole, which `toToml` does not see to. */}}
{{- define "tollway.config" -}}
{{- range $key, $value := .Values.config }}
{{- if not (kindIs "map" $value) }}
{{ $key }} = {{ $value | toJson }}
{{- end }}
{{- end }}
{{- range $section, $settings := .Values.config }}
{{- if kindIs "map" $settings }}
[{{ $section }}]
{{- range $key, $value := $settings }}
{{- if kindIs "map" $value }}
{{ $key }} = { {{- range $i, $name := keys $value | sortAlpha }}{{ if $i }}, {{ end }}{{ $name | toJson }} = {{ get $value $name | toJson }}{{ end -}} }
{{- else }}
{{ $key }} = {{ $value | toJson }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
