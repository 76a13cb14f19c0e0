-- Each new value is one request; the time is one that was not there before.
local os = require("os")
if obj.metadata.annotations == nil then
  obj.metadata.annotations = {}
end
obj.metadata.annotations["wechat.apptoken.dev/check-requested-at"] = os.date("!%Y-%m-%dT%XZ")
return obj
