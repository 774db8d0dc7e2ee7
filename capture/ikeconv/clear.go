package ikeconv

import (
	"encoding/binary"
	"slices"
	"strings"
	"time"

	"vpnprobe/internal/wire/ike"
)

// maxPayloads bounds the work on one message, and maxBody what is looked into
// of one payload, in bytes.
const (
	maxPayloads = 64
	maxBody     = 4096
)

// payloads returns the payloads of a message in clear, as far as the capture
// goes: the last one may be missing.
func payloads(h ike.Header, data []byte) []ike.Payload {
	b := data[ike.HeaderLen:]
	next := h.NextPayload
	var list []ike.Payload
	for next != ike.NoNextPayload && len(list) < maxPayloads && len(b) >= genericHeader {
		n := int(binary.BigEndian.Uint16(b[2:]))
		if n < genericHeader || n > len(b) {
			break
		}
		list = append(list, ike.Payload{Type: next, Body: b[genericHeader:n]})
		next, b = ike.PayloadType(b[0]), b[n:]
	}
	return list
}

// first returns the first payload of a type.
func first(list []ike.Payload, t ike.PayloadType) (ike.Payload, bool) {
	for _, p := range list {
		if p.Type == t && len(p.Body) <= maxBody {
			return p, true
		}
	}
	return ike.Payload{}, false
}

// refusalOf returns the first notify of an IKEv2 message that is an error.
func refusalOf(list []ike.Payload) (ike.NotifyType, bool) {
	for _, p := range list {
		if p.Type == ike.PayloadNotify {
			if n, err := ike.ParseNotify(p.Body); err == nil && n.Type.IsError() {
				return n.Type, true
			}
		}
	}
	return 0, false
}

// notify counts the notifies of a type.
type notify struct {
	v1      bool
	number  uint16
	from    side
	name    string
	count   uint64
	last    time.Time
	changed uint64 // serial
}

// maxUnregistered is how many types of notifies without a registered name are
// counted apart from each other; there are as many of them as anyone likes. A
// registered name always finds room.
const maxUnregistered = 8

// heardNotifies counts the notifies of a message in clear, and returns its
// payloads.
func (c *Conversation) heardNotifies(h ike.Header, from side, m Message) []ike.Payload {
	list := payloads(h, m.Data)
	for _, p := range list {
		switch p.Type {
		case ike.PayloadNotify:
			if n, err := ike.ParseNotify(p.Body); err == nil {
				c.countNotify(notify{number: uint16(n.Type), from: from}, n.Type.String, m.Time)
			}
		case ike.PayloadNotifyV1:
			if n, err := ike.ParseNotifyV1(p.Body); err == nil {
				c.countNotify(notify{v1: true, number: uint16(n.Type), from: from}, n.Type.String, m.Time)
			}
		}
	}
	return list
}

func (c *Conversation) countNotify(n notify, name func() string, at time.Time) {
	i := slices.IndexFunc(c.notifies, func(o notify) bool {
		return o.number == n.number && o.from == n.from && o.v1 == n.v1
	})
	if i < 0 {
		if n.name = name(); unregistered(n.name) {
			others := 0
			for _, o := range c.notifies {
				if unregistered(o.name) {
					others++
				}
			}
			if others >= maxUnregistered {
				return
			}
		}
		i = len(c.notifies)
		c.notifies = append(c.notifies, n)
	}
	o := &c.notifies[i]
	o.count++
	o.last, o.changed = at, c.serial
}

// unregistered reports whether a name is a number, as in "NOTIFY_40000".
func unregistered(name string) bool {
	_, number, ok := strings.Cut(name, "_")
	return ok && number != "" && strings.Trim(number, "0123456789") == ""
}

// refuses reports whether the notify is an error (RFC 7296 section 3.10.1, RFC
// 2408 section 3.14.1).
func (n notify) refuses() bool {
	if n.v1 {
		return n.number < 8192
	}
	return ike.NotifyType(n.number).IsError()
}
