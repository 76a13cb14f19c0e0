-- The order is kstatus', with suspension first: a suspended client is nobody's fault and not under way.
local function find(kind)
  for _, condition in ipairs(obj.status.conditions or {}) do
    if condition.type == kind then
      return condition
    end
  end
  return nil
end

if obj.spec ~= nil and obj.spec.suspend then
  return { status = "Suspended", message = "Suspended: its calls are refused" }
end

if obj.status == nil or obj.status.observedGeneration ~= obj.metadata.generation then
  return { status = "Progressing", message = "Waiting for the operator to look at it" }
end

local stalled = find("Stalled")
if stalled ~= nil and stalled.status == "True" then
  return { status = "Degraded", message = stalled.message }
end

local reconciling = find("Reconciling")
if reconciling ~= nil and reconciling.status == "True" then
  return { status = "Progressing", message = reconciling.message }
end

local ready = find("Ready")
if ready == nil then
  return { status = "Progressing", message = "Waiting for the operator to look at it" }
end
if ready.status == "True" then
  return { status = "Healthy", message = ready.message }
end
return { status = "Degraded", message = ready.message }
