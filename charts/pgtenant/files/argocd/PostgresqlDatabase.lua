-- Health of a PostgresqlDatabase, for Argo CD (Lua 5.1).
local function is(status, message)
  return { status = status, message = message }
end

if obj.metadata.deletionTimestamp ~= nil then
  return is("Progressing", "Being removed")
end

local status = obj.status
if status == nil or status.observedGeneration == nil then
  return is("Progressing", "Waiting for pgtenant to look at it")
end
if status.observedGeneration ~= obj.metadata.generation then
  return is("Progressing", "Waiting for pgtenant to look at the change")
end

local ready, flaw
for _, condition in ipairs(status.conditions or {}) do
  if condition.type == "Ready" then
    ready = condition
  elseif condition.status == "False" and flaw == nil then
    flaw = condition.message
  end
end

if status.state == "Retained" then
  return is("Suspended", "Kept, and not managed")
end
if status.state == "Deleting" then
  return is("Progressing", "Being removed")
end
if ready == nil or ready.observedGeneration ~= nil and ready.observedGeneration ~= obj.metadata.generation then
  return is("Progressing", "Waiting for pgtenant to look at the change")
end
if ready.status == "True" then
  -- Degraded with Ready: it can be used, and what is left only a person can change. Deployments need not wait for that.
  return is("Healthy", status.state == "Degraded" and flaw or ready.message or "Ready")
end
if ready.status == "False" and (status.state == "Failed" or status.state == "Degraded") then
  return is("Degraded", ready.message or ready.reason or status.state)
end
return is("Progressing", ready.message or status.state)
