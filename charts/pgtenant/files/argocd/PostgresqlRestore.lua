-- Health of a PostgresqlRestore, for Argo CD (Lua 5.1).
local function is(status, message)
  return { status = status, message = message }
end

if obj.metadata.deletionTimestamp ~= nil then
  return is("Progressing", "Being removed")
end

local status = obj.status or {}
local message
for _, condition in ipairs(status.conditions or {}) do
  if condition.type == "Complete" then
    message = condition.message
  end
end

local phase = status.phase
if phase == nil then
  -- It could not be asked for yet, as when its claim comes with the same sync.
  return is("Progressing", message or "Waiting for pgtenant to look at it")
end

if phase == "Succeeded" then
  return is("Healthy", message or phase)
end
if phase == "Requested" then
  return is("Suspended", message or "Waiting for a person to approve it")
end
-- What was asked for has not happened, and will not.
if phase == "Failed" or phase == "Cancelled" or phase == "Rejected" then
  return is("Degraded", message or phase)
end
return is("Progressing", message or phase)
