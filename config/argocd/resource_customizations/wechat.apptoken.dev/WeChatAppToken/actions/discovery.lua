local suspended = obj.spec ~= nil and obj.spec.suspend == true
local actions = {}
-- While it is suspended nothing is fetched, and a request would wait.
actions["check"] = { ["disabled"] = suspended }
actions["refresh"] = { ["disabled"] = suspended }
actions["revoke"] = { ["disabled"] = suspended }
actions["suspend"] = { ["disabled"] = suspended }
actions["resume"] = { ["disabled"] = not suspended }
return actions
