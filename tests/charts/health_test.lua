-- Argo CD's health checks, run as Argo CD runs them: a chunk that sees `obj` and returns a status and a message.
-- Usage: lua5.1 health_test.lua FOLDER-WITH-CHECKS

local folder = assert(arg[1], "name the folder with the checks")
local passed, failed = 0, 0

local function check(kind, name, obj, status, message)
  local chunk = assert(loadfile(folder .. "/" .. kind .. ".lua"))
  -- What Argo CD opens in its sandbox: base and table, no string.
  setfenv(chunk, { obj = obj, ipairs = ipairs, pairs = pairs, table = table, tostring = tostring, type = type })
  local ok, result = pcall(chunk)
  local said = ok and (tostring(result.status) .. ": " .. tostring(result.message)) or tostring(result)
  local wanted = status .. ": " .. (message or "")
  if ok and type(result.message) == "string" and said:sub(1, #wanted) == wanted then
    passed = passed + 1
  else
    failed = failed + 1
    io.stderr:write(string.format("%s, %s: wanted %q, is %q\n", kind, name, wanted, said))
  end
end

local function object(status, metadata)
  metadata = metadata or {}
  metadata.generation = metadata.generation or 2
  return { metadata = metadata, spec = {}, status = status }
end

local function condition(kind, status, reason, message, generation)
  return { type = kind, status = status, reason = reason, message = message, observedGeneration = generation or 2 }
end

local function database(state, ready, others, generation)
  local conditions = others or {}
  conditions[#conditions + 1] = ready
  return { state = state, observedGeneration = generation or 2, conditions = conditions }
end

local D = "PostgresqlDatabase"
local up = condition("Ready", "True", "Provisioned", "every tier has logged in")
check(D, "no status", object(nil), "Progressing")
check(D, "an empty status", object({}), "Progressing")
check(D, "no conditions", object({ state = "Pending", observedGeneration = 2 }), "Progressing")
check(D, "pending", object(database("Pending", condition("Ready", "False", "Pending", "waits"))), "Progressing", "waits")
check(D, "provisioning", object(database("Provisioning", condition("Ready", "False", "Provisioning", "being made"))), "Progressing")
check(D, "ready", object(database("Ready", up)), "Healthy", "every tier has logged in")
check(D, "ready of an earlier generation", object(database("Ready", up, nil, 1)), "Progressing", "Waiting")
check(D, "a condition of an earlier generation",
  object(database("Ready", condition("Ready", "True", "Provisioned", "old", 1))), "Progressing", "Waiting")
check(D, "failed", object(database("Failed", condition("Ready", "False", "NotOurs", "belongs to another"))),
  "Degraded", "belongs to another")
check(D, "failed for a while", object(database("Failed", condition("Ready", "False", "ClusterUnavailable", "no primary"))),
  "Degraded", "no primary")
check(D, "degraded", object(database("Degraded", condition("Ready", "False", "StoreFailed", "no store"))), "Degraded", "no store")
check(D, "degraded, and can be used",
  object(database("Degraded", up, { condition("Database", "False", "NeedsSuperuser", "run ALTER ROLE") })), "Healthy", "run ALTER ROLE")
check(D, "being removed", object(database("Ready", up), { deletionTimestamp = "2026-11-20T03:00:00Z" }), "Progressing", "Being removed")
check(D, "being removed, without a status", object(nil, { deletionTimestamp = "2026-11-20T03:00:00Z" }), "Progressing", "Being removed")
check(D, "deleting", object(database("Deleting", condition("Ready", "False", "Deleting", "drops"))), "Progressing", "Being removed")
check(D, "retained", object(database("Retained", condition("Ready", "False", "Retained", "kept"))), "Suspended", "Kept")
check(D, "a state that is not known", object(database("Dreaming", condition("Ready", "False", "X", nil))), "Progressing", "Dreaming")
check(D, "unknown", object(database("Provisioning", condition("Ready", "Unknown", "X", "asks"))), "Progressing", "asks")

local C = "PostgresqlCluster"
local function cluster(...)
  return { observedGeneration = 2, conditions = { ... } }
end
check(C, "no status", object(nil), "Progressing")
check(C, "no conditions", object({ observedGeneration = 2 }), "Progressing")
check(C, "ready", object(cluster(condition("Ready", "True", "Reached", "db1 is the primary"))), "Healthy", "db1")
check(C, "not ready", object(cluster(condition("Ready", "False", "ClusterUnavailable", "no primary"))), "Degraded", "no primary")
check(C, "not known", object(cluster(condition("Ready", "Unknown", "Asking", nil))), "Progressing")
check(C, "an earlier generation", object({ observedGeneration = 1, conditions = { up } }), "Progressing", "Waiting")
check(C, "being removed", object(cluster(up), { deletionTimestamp = "2026-11-20T03:00:00Z" }), "Progressing", "Being removed")

local R = "PostgresqlRestore"
local wanted = {
  Requested = "Suspended", Approved = "Progressing", Preparing = "Progressing", Copying = "Progressing",
  Verifying = "Progressing", Switching = "Progressing", CleaningUp = "Progressing", Succeeded = "Healthy",
  Failed = "Degraded", Cancelled = "Degraded", Rejected = "Degraded",
}
check(R, "no status", object(nil), "Progressing")
check(R, "an empty status", object({}), "Progressing")
for phase, status in pairs(wanted) do
  check(R, phase, object({ phase = phase, observedGeneration = 2 }), status)
end
local complete = { type = "Complete", status = "False", reason = "NotFound", message = "no such snapshot" }
check(R, "its message", object({ phase = "Failed", conditions = { complete } }), "Degraded", "no such snapshot")
local early = { type = "Complete", status = "False", reason = "NotFound", message = "there is no database shop/orders" }
check(R, "before its claim", object({ conditions = { early } }), "Progressing", "there is no database")
check(R, "being removed", object({ phase = "Copying" }, { deletionTimestamp = "2026-11-20T03:00:00Z" }), "Progressing", "Being removed")

print(string.format("health checks: %d passed, %d failed", passed, failed))
os.exit(failed == 0 and 0 or 1)
