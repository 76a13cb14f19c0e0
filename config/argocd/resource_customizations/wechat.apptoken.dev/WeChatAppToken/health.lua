-- The order is kstatus', with suspension first: a suspended resource is nobody's fault and not under way.
local function find(kind)
  for _, condition in ipairs(obj.status.conditions or {}) do
    if condition.type == kind then
      return condition
    end
  end
  return nil
end

if obj.spec ~= nil and obj.spec.suspend then
  local message = "Suspended: the token is not replaced and will expire"
  if obj.status ~= nil then
    local ready = find("Ready")
    if ready ~= nil and ready.status ~= "True" then
      message = "Suspended, and not Ready: " .. (ready.message or "")
    end
  end
  return { status = "Suspended", message = message }
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
  return { status = "Progressing", message = "Waiting for the first token" }
end
-- A valid token is healthy, and so are valid tickets, also while a refresh fails: the message says so, and there is time.
if ready.status == "True" then
  return { status = "Healthy", message = ready.message }
end
return { status = "Degraded", message = ready.message }
