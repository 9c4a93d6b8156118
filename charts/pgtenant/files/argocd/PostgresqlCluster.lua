-- Health of a PostgresqlCluster, for Argo CD (Lua 5.1).
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

for _, condition in ipairs(status.conditions or {}) do
  if condition.type == "Ready" then
    if condition.observedGeneration ~= nil and condition.observedGeneration ~= obj.metadata.generation then
      return is("Progressing", "Waiting for pgtenant to look at the change")
    end
    if condition.status == "True" then
      return is("Healthy", condition.message or "Ready")
    end
    if condition.status == "False" then
      return is("Degraded", condition.message or condition.reason)
    end
    return is("Progressing", condition.message or "Not known yet")
  end
end
return is("Progressing", "Waiting for pgtenant to look at it")
