{{- define "pgtenant.name" -}}
{{ .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* The name of everything in the release's namespace. Room for `-webhook` is left. */}}
{{- define "pgtenant.fullname" -}}
{{- $name := include "pgtenant.name" . }}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) }}
{{- .Values.fullnameOverride | default $full | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "pgtenant.selector" -}}
app.kubernetes.io/name: {{ include "pgtenant.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: control-plane
{{- end }}

{{- define "pgtenant.labels" -}}
app.kubernetes.io/name: {{ include "pgtenant.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "pgtenant.serviceAccountName" -}}
{{ .Values.serviceAccount.name | default (ternary (include "pgtenant.fullname" .) "default" .Values.serviceAccount.create) }}
{{- end }}

{{- define "pgtenant.image" -}}
{{- $image := .Values.image }}
{{- $repository := ternary (printf "%s/%s" $image.registry $image.repository) $image.repository (ne $image.registry "") }}
{{- if $image.digest }}
{{- printf "%s@%s" $repository $image.digest }}
{{- else }}
{{- printf "%s:%s" $repository ($image.tag | default .Chart.AppVersion) }}
{{- end }}
{{- end }}

{{- define "pgtenant.restPort" -}}
{{ .Values.config.listen | default "0.0.0.0:8080" | splitList ":" | last }}
{{- end }}

{{- define "pgtenant.webhookService" -}}
{{ include "pgtenant.fullname" . }}-webhook
{{- end }}

{{- define "pgtenant.certificate" -}}
{{ include "pgtenant.fullname" . }}-webhook
{{- end }}

{{- define "pgtenant.checkValues" -}}
{{- if not (.Values.config.ledger | default dict).url }}
{{- fail "config.ledger.url is missing: the PostgreSQL URL of the ledger, without a password" }}
{{- end }}
{{- if not (or .Values.ledger.existingSecret .Values.config.ledger.password_file) }}
{{- fail "ledger.existingSecret is missing: the Secret with the password of the ledger's user" }}
{{- end }}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) }}
{{- fail "ingress.hosts is empty" }}
{{- end }}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) }}
{{- fail "httpRoute.parentRefs is empty" }}
{{- end }}
{{- end }}

{{/* What the chart itself knows: where it mounts things and how it calls its Services. `config` counts before it. */}}
{{- define "pgtenant.ownSettings" -}}
{{- if .Values.ledger.existingSecret }}
ledger:
  password_file: /etc/pgtenant/ledger/{{ .Values.ledger.passwordKey }}
{{- end }}
kubernetes:
  enabled: true
  webhook_listen: "0.0.0.0:{{ .Values.webhook.port }}"
  webhook_service: {{ include "pgtenant.webhookService" . }}
  {{- if .Values.webhook.certManager.enabled }}
  webhook_tls_dir: /etc/pgtenant/webhook-tls
  {{- end }}
{{- end }}

{{/* pgtenant.toml. Helm's toToml writes whole numbers with a point, which is another type. */}}
{{- define "pgtenant.settings" -}}
{{- include "pgtenant.tomlFile" (mergeOverwrite (include "pgtenant.ownSettings" . | fromYaml) (deepCopy .Values.config)) }}
{{- end }}

{{/* The same for the migration, which comes before the webhook's certificate and speaks to no Kubernetes. */}}
{{- define "pgtenant.migrationSettings" -}}
{{- $settings := mergeOverwrite (include "pgtenant.ownSettings" . | fromYaml) (deepCopy .Values.config) }}
{{- include "pgtenant.tomlFile" (omit $settings "kubernetes") }}
{{- end }}

{{- define "pgtenant.tomlFile" -}}
{{- $settings := . }}
{{- range $key, $value := $settings }}
{{- if not (or (kindIs "map" $value) (kindIs "invalid" $value)) }}
{{ $key }} = {{ include "pgtenant.toml" $value }}
{{- end }}
{{- end }}
{{- range $section, $fields := omit $settings "clusters" }}
{{- if and (kindIs "map" $fields) $fields }}

[{{ $section }}]
{{- include "pgtenant.tomlFields" $fields }}
{{- end }}
{{- end }}
{{- range $name, $cluster := $settings.clusters }}

[clusters.{{ $name }}]
{{- include "pgtenant.tomlFields" $cluster }}
{{- end }}
{{ end }}

{{- define "pgtenant.tomlFields" -}}
{{- range $key, $value := . }}
{{- if not (kindIs "invalid" $value) }}
{{ $key }} = {{ include "pgtenant.toml" $value }}
{{- end }}
{{- end }}
{{- end }}

{{- define "pgtenant.toml" -}}
{{- if kindIs "map" . -}}
{ {{- $parts := list }}
{{- range $key, $value := . }}
{{- if not (kindIs "invalid" $value) }}
{{- $parts = append $parts (printf "%s = %s" $key (include "pgtenant.toml" $value)) }}
{{- end }}
{{- end }} {{ join ", " $parts }} }
{{- else if kindIs "slice" . -}}
[{{- range $index, $value := . }}{{ if $index }}, {{ end }}{{ include "pgtenant.toml" $value }}{{ end -}}]
{{- else if or (kindIs "bool" .) (kindIs "int" .) (kindIs "int64" .) -}}
{{ . }}
{{- else if kindIs "float64" . -}}
{{ if eq . (floor .) }}{{ int64 . }}{{ else }}{{ . }}{{ end }}
{{- else -}}
{{ . | toString | toRawJson }}
{{- end }}
{{- end }}

{{/* What the control plane and its migration mount alike. */}}
{{- define "pgtenant.volumes" -}}
{{- with .Values.ledger.existingSecret }}
- name: ledger
  secret:
    secretName: {{ . }}
    defaultMode: 0440
{{- end }}
{{- range .Values.secretMounts }}
- name: secret-{{ .name }}
  secret:
    secretName: {{ .existingSecret }}
    defaultMode: 0440
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "pgtenant.volumeMounts" -}}
{{- if .Values.ledger.existingSecret }}
- {name: ledger, mountPath: /etc/pgtenant/ledger, readOnly: true}
{{- end }}
{{- range .Values.secretMounts }}
- {name: secret-{{ .name }}, mountPath: /etc/pgtenant/secrets/{{ .name }}, readOnly: true}
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}
