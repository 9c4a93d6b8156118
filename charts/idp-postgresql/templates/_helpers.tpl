{{/* Labels of everything that the chart makes. */}}
{{- define "idp-postgresql.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.Version | quote }}
app.kubernetes.io/component: database
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* How a team comes from the values of the charts before. Takes what was found. */}}
{{- define "idp-postgresql.migrate" -}}
{{ fail (printf "%s of an earlier chart. Databases are written `postgresqlDatabases: [{name: …, mode: standard}]` (or `protected`) now: `pgtenant migrate values -f apps/` shows the change, and makes it with --write" .) }}
{{- end }}

{{/* Stops with a message that names the entry where the values can not be used. What a schema can say is in it. */}}
{{- define "idp-postgresql.validate" -}}
{{- if and .Release.IsUpgrade (semverCompare ">=4.0.0-0 <4.1.1-0" .Capabilities.HelmVersion.Version) }}
{{- fail (printf "Helm %s deletes resources whose apiVersion changes, which would drop databases that came from chart 0.x. Use Helm 4.1.1 or newer, or Helm 3" .Capabilities.HelmVersion.Version) }}
{{- end }}
{{- if hasKey .Values "tenantDatabases" }}
{{- include "idp-postgresql.migrate" "tenantDatabases is a key" }}
{{- end }}
{{- $seen := dict }}
{{- range $index, $entry := .Values.postgresqlDatabases }}
{{- $place := printf "postgresqlDatabases[%d] (%s)" $index $entry.name }}
{{- range $key := list "deletionProtection" "roleDeletionPolicy" "dbDeletionPolicy" }}
{{- if hasKey $entry $key }}
{{- include "idp-postgresql.migrate" (printf "%s: %s is a key" $place $key) }}
{{- end }}
{{- end }}
{{- if hasKey $seen $entry.name }}
{{- fail (printf "%s: %q is defined twice; the first time in postgresqlDatabases[%d]" $place $entry.name (get $seen $entry.name)) }}
{{- end }}
{{- $_ := set $seen $entry.name $index }}
{{- $database := printf "%s-%s" $.Release.Namespace $entry.name }}
{{- if gt (len $database) 55 }}
{{- fail (printf "%s: the database would be called %q, which has %d bytes; {namespace}-{name} has at most 55" $place $database (len $database)) }}
{{- end }}
{{- range $schema := $entry.schemas }}
{{- if eq $schema "public" }}
{{- fail (printf "%s: schemas: \"public\" is always there; list further schemas only" $place) }}
{{- end }}
{{- if or (hasPrefix "pg_" $schema) (eq $schema "information_schema") }}
{{- fail (printf "%s: schemas: %q is reserved by PostgreSQL" $place $schema) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* Whom to tell of what happens to the databases: read by pgtenant, and by Argo CD's notifications. */}}
{{- define "idp-postgresql.notifications" -}}
{{- $global := .Values.global | default dict }}
{{- with $global.slackChannel }}
{{- $triggers := $global.slackTriggers | default list }}
{{- if kindIs "string" $triggers }}
{{- $triggers = regexSplit "[,;\\s]+" (trim $triggers) -1 | compact }}
{{- end }}
pgtenant.io/slack-channel: {{ . | quote }}
{{- range $trigger := $triggers }}
{{ printf "notifications.argoproj.io/subscribe.%s.slack" $trigger }}: {{ trimPrefix "#" $global.slackChannel | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* global.pgtenant with its defaults: an umbrella chart's global may be without it. */}}
{{- define "idp-postgresql.settings" -}}
{{- $given := (.Values.global | default dict).pgtenant | default dict }}
syncWave: {{ dig "syncWave" -5 $given | int }}
testImage: {{ dig "test" "image" "postgres:17-alpine" $given | quote }}
{{- end }}
