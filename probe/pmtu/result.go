package pmtu

import (
	"slices"

	"vpnprobe/evidence"
)

// results returns what became of each size, ascending.
func (h *history) results() []evidence.SizeResult {
	sizes := map[int]*evidence.SizeResult{}
	of := func(n int) *evidence.SizeResult {
		if sizes[n] == nil {
			sizes[n] = &evidence.SizeResult{Size: n}
		}
		return sizes[n]
	}
	for n := range h.local {
		of(n).Local = true
	}
	largest := h.largest()
	for _, a := range h.list {
		if !a.counts() {
			continue
		}
		r := of(a.size)
		r.Sent++
		if a.answered {
			r.Answered++
		}
		for _, e := range a.said {
			r.TooBig = r.TooBig || e.Reason == evidence.FragNeeded && !h.bogus(a.size, e.MTU.Or(0), largest)
		}
	}
	out := make([]evidence.SizeResult, 0, len(sizes))
	for _, r := range sizes {
		out = append(out, *r)
	}
	slices.SortFunc(out, func(a, b evidence.SizeResult) int { return a.Size - b.Size })
	return out
}

func (h *history) tried(of func(*attempt) bool) (t evidence.Tried) {
	for _, a := range h.list {
		if of(a) {
			t.Sent++
			if a.answered {
				t.Answered++
			}
		}
	}
	return t
}

// expired counts the probes in fragments of which somebody said that fragments
// were missing (RFC 792, RFC 4443 section 3.3).
func (h *history) expired(v6 bool) (n int) {
	typ := uint8(11)
	if v6 {
		typ = 3
	}
	for _, a := range h.list {
		if a.form != whole && slices.ContainsFunc(a.said, func(e evidence.ICMPError) bool { return e.Type == typ && e.Code == 1 }) {
			n++
		}
	}
	return n
}

// tooBig counts the "too big" messages that may be true, and those that cannot.
func (h *history) tooBig() (credible, bogus []evidence.CountedICMPError) {
	largest := h.largest()
	for _, a := range h.list {
		for _, e := range a.said {
			switch {
			case a.form != whole || e.Reason != evidence.FragNeeded:
			case h.bogus(a.size, e.MTU.Or(0), largest):
				bogus = count(bogus, e)
			default:
				credible = count(credible, e)
			}
		}
	}
	return credible, bogus
}

func count(list []evidence.CountedICMPError, e evidence.ICMPError) []evidence.CountedICMPError {
	for i := range list {
		if list[i].ICMPError == e {
			list[i].Count++
			return list
		}
	}
	return append(list, evidence.CountedICMPError{ICMPError: e, Count: 1})
}
