// SPDX-License-Identifier: Apache-2.0

package gateway

// otherPath stands for all paths, errcodes and parameters of which callers could invent any number.
const otherPath = "other"

// knownPaths returns the paths that metrics name. WeChat has hundreds; these are the ones that programs call most, and those that the
// gateway treats in a way of its own.
func knownPaths() map[string]bool {
	known := map[string]bool{}
	for _, path := range [...]string{
		pathToken, pathStableToken, pathTicket,
		"/sns/jscode2session", "/sns/oauth2/access_token", "/sns/oauth2/refresh_token", "/sns/userinfo", "/sns/auth",

		"/cgi-bin/get_api_domain_ip", "/cgi-bin/getcallbackip", "/cgi-bin/callback/check", "/cgi-bin/shorten/gen", "/cgi-bin/shorten/fetch",
		"/cgi-bin/qrcode/create", "/cgi-bin/get_current_autoreply_info",

		"/cgi-bin/menu/create", "/cgi-bin/menu/get", "/cgi-bin/menu/delete", "/cgi-bin/get_current_selfmenu_info",

		"/cgi-bin/user/info", "/cgi-bin/user/info/batchget", "/cgi-bin/user/info/updateremark", "/cgi-bin/user/get",
		"/cgi-bin/tags/get", "/cgi-bin/tags/create", "/cgi-bin/tags/members/batchtagging", "/cgi-bin/tags/members/batchuntagging",

		"/cgi-bin/message/template/send", "/cgi-bin/message/template/subscribe", "/cgi-bin/message/subscribe/send",
		"/cgi-bin/message/subscribe/bizsend", "/cgi-bin/message/custom/send", "/cgi-bin/message/custom/typing",
		"/cgi-bin/message/wxopen/activityid/create", "/cgi-bin/message/wxopen/updatablemsg/send",
		"/cgi-bin/message/mass/send", "/cgi-bin/message/mass/sendall", "/cgi-bin/message/mass/preview", "/cgi-bin/message/mass/get",
		"/cgi-bin/template/get_all_private_template", "/cgi-bin/template/api_add_template",

		"/cgi-bin/media/upload", "/cgi-bin/media/get", "/cgi-bin/media/get/jssdk", "/cgi-bin/media/uploadimg",
		"/cgi-bin/material/add_material", "/cgi-bin/material/get_material", "/cgi-bin/material/batchget_material",
		"/cgi-bin/material/del_material", "/cgi-bin/material/get_materialcount",
		"/cgi-bin/draft/add", "/cgi-bin/draft/get", "/cgi-bin/draft/update", "/cgi-bin/draft/batchget", "/cgi-bin/draft/delete",
		"/cgi-bin/freepublish/submit", "/cgi-bin/freepublish/get", "/cgi-bin/freepublish/batchget",

		"/wxa/getwxacode", "/wxa/getwxacodeunlimit", "/cgi-bin/wxaapp/createwxaqrcode", "/wxa/generatescheme", "/wxa/generate_urllink",
		"/wxa/genwxashortlink", "/wxa/business/getuserphonenumber", "/wxa/checksession", "/wxa/resetusersessionkey",
		"/wxa/msg_sec_check", "/wxa/media_check_async", "/wxa/img_sec_check", "/wxa/getpaidunionid", "/wxa/getuserriskrank",
		"/wxa/sec/order/upload_shipping_info", "/wxa/sec/order/get_order", "/wxaapi/newtmpl/gettemplate",

		"/datacube/getusersummary", "/datacube/getusercumulate", "/datacube/getarticletotal", "/datacube/getweanalysisappiddailysummarytrend",
	} {
		known[path] = true
	}
	return known
}

// isCommonCode reports whether the gateway answers with an errcode, or WeChat does so often on the paths that metrics name.
func isCommonCode(code int) bool {
	switch code {
	case codeBusy, codeTokenInvalid, codeUnknownApp, codeKeyWrong, codeNoToken, codeNoAppID, codeNoKey, codeTokenExpired, codeNeedsGet,
		codeNeedsPost, codeTooMany, codeNotAllowed:
		return true
	case 40003, 40004, 40006, 40007, 40008, 40014, 40029, 40035, 40037, 40097, 40163, 40226, 41005, 41008, 41028, 41029, 41030, 43004,
		43101, 44001, 44002, 44004, 45001, 45002, 45008, 45009, 45015, 45047, 46003, 46004, 47001, 47003, 48002, 48003, 48004, 48006,
		50002, 61450, 61451, 87009, 87014, 89002:
		return true
	}
	return false
}
