// SPDX-License-Identifier: Apache-2.0

package wechattest

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"time"
)

// Upload is a file that was sent to /cgi-bin/media/upload. Its bytes are not kept.
type Upload struct {
	// MediaID is the name that the server gave the file.
	MediaID string `json:"mediaID"`
	AppID   string `json:"appID"`
	// Type is the type in the query, such as image.
	Type string `json:"type"`
	// FileName and ContentType are those of the part of the multipart body.
	FileName    string `json:"fileName"`
	ContentType string `json:"contentType"`
	// Size is the length of the file in bytes, and SHA256 the hash of them in hex.
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// mediaLimit returns the maximum size of a file of a type in bytes, or 0 for a type that WeChat does not know.
func mediaLimit(kind string) int64 {
	switch kind {
	case "image", "video":
		return 10 << 20
	case "voice":
		return 2 << 20
	case "thumb":
		return 64 << 10
	}
	return 0
}

// readUpload reads a multipart body to its end, and returns the file that the part "media" holds; nil for none. A file is not held
// in memory. An error in reading the body is not lost, because the body returns it again to whoever reads on.
func readUpload(r *http.Request) *Upload {
	defer func() { _, _ = io.Copy(io.Discard, r.Body) }()
	parts, err := r.MultipartReader()
	if err != nil {
		return nil
	}
	for {
		part, err := parts.NextPart()
		if err != nil {
			return nil
		}
		if part.FormName() != "media" || part.FileName() == "" {
			continue
		}
		hash := sha256.New()
		size, err := io.Copy(hash, part)
		if err != nil {
			return nil
		}
		return &Upload{
			FileName: part.FileName(), ContentType: part.Header.Get("Content-Type"),
			Size: size, SHA256: hex.EncodeToString(hash.Sum(nil)),
		}
	}
}

// answerUpload answers an upload and records it.
func (p *platform) answerUpload(q request, appID string, now time.Time) reply {
	kind := q.query.Get("type")
	limit := mediaLimit(kind)
	switch {
	case limit == 0:
		return q.fail(codeInvalidMediaType, "", now)
	case q.upload == nil || q.upload.Size == 0:
		return q.fail(codeMediaMissing, "", now)
	case q.upload.Size > limit:
		return q.fail(codeMediaTooLarge, "", now)
	}
	u := *q.upload
	u.MediaID, u.AppID, u.Type = randomText(64), appID, kind
	p.uploads = append(p.uploads, u)
	return jsonSuccess(map[string]any{"type": kind, "media_id": u.MediaID, "created_at": now.Unix()})
}

// Uploads returns the files that were uploaded with tokens of an appid, in their order. If appID is empty it returns those of all.
func (s *Server) Uploads(appID string) []Upload {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []Upload
	for _, u := range s.platform.uploads {
		if appID == "" || appID == u.AppID {
			list = append(list, u)
		}
	}
	return list
}
