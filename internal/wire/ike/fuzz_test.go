package ike

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func FuzzParse(f *testing.F) {
	for _, tt := range messages {
		f.Add(unhex(f, tt.hex))
	}
	for _, c := range captured(f) {
		f.Add(c.message)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Parse(b)
		if err != nil {
			return
		}
		if len(m.Payloads) > maxPayloads {
			t.Fatalf("%d payloads", len(m.Payloads))
		}
		_ = m.FirstNotify()
		for _, p := range m.Payloads {
			fixedPoint(t, p)
		}
		built := m.Append(nil)
		again, err := Parse(built)
		if err != nil {
			t.Fatalf("parse of append: %v", err)
		}
		again.Length = m.Length // padding of IKEv1 is lost
		if diff := cmp.Diff(m, again); diff != "" {
			t.Fatalf("parse of append (-first +second):\n%s", diff)
		}
		if !bytes.Equal(again.Append(nil), built) {
			t.Fatalf("% x was appended, and then % x", built, again.Append(nil))
		}
	})
}

// fixedPoint requires of a payload that can be read that it is read as the
// same again after it was built. But a proposal or transform of number 0 gets
// the number of its position.
func fixedPoint(t *testing.T, p Payload) {
	first, built, known, err := parseBody(p)
	if !known || err != nil {
		return
	}
	if built.Type != p.Type || built.Inner != p.Inner || len(built.Body) > len(p.Body) {
		t.Fatalf("%+v became %+v", p, built)
	}
	second, _, _, err := parseBody(built)
	if err != nil {
		t.Fatalf("parse of % x, built from % x: %v", built.Body, p.Body, err)
	}
	number(first)
	if diff := cmp.Diff(first, second, compareAddr); diff != "" {
		t.Fatalf("% x (-first +second):\n%s", p.Body, diff)
	}
}

func number(sa any) {
	switch sa := sa.(type) {
	case []Proposal:
		for i := range sa {
			sa[i].Number = numbered(sa[i].Number, i)
		}
	case SAV1:
		for i := range sa.Proposals {
			p := &sa.Proposals[i]
			p.Number = numbered(p.Number, i)
			for j := range p.Transforms {
				p.Transforms[j].Number = numbered(p.Transforms[j].Number, j)
			}
		}
	}
}

func FuzzBody(f *testing.F) {
	for _, tt := range bodies {
		f.Add(byte(tt.typ), unhex(f, tt.hex))
	}
	f.Fuzz(func(t *testing.T, typ byte, b []byte) {
		fixedPoint(t, Payload{Type: PayloadType(typ), Body: b})
	})
}

func FuzzSA(f *testing.F) {
	for _, tt := range saBodies {
		f.Add(unhex(f, tt.hex))
	}
	for _, c := range captured(f) {
		if m, err := Parse(c.message); err == nil {
			if p, ok := m.First(PayloadSA); ok {
				f.Add(p.Body)
			}
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		fixedPoint(t, Payload{Type: PayloadSA, Body: b})
		list, err := ParseSA(b)
		if err != nil {
			return
		}
		for _, p := range list {
			for _, transform := range p.Transforms {
				if transform.Keyword() == "" {
					t.Errorf("no keyword of %+v", transform)
				}
			}
		}
	})
}

func FuzzSAV1(f *testing.F) {
	f.Add(unhex(f, saV1Body))
	for _, c := range captured(f) {
		if m, err := Parse(c.message); err == nil {
			if p, ok := m.First(PayloadSAV1); ok {
				f.Add(p.Body)
			}
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		fixedPoint(t, Payload{Type: PayloadSAV1, Body: b})
		sa, err := ParseSAV1(b)
		if err != nil {
			return
		}
		for _, p := range sa.Proposals {
			for _, transform := range p.Transforms {
				_, _, _, _ = PhaseOneKeywords(transform.Attributes)
			}
		}
	})
}

func FuzzNotify(f *testing.F) {
	f.Add([]byte{0, 0, 0, 5})
	f.Add([]byte{3, 4, 0, 39, 1, 2, 3, 4, 5})
	f.Fuzz(func(t *testing.T, b []byte) {
		if n, err := ParseNotify(b); err == nil && !bytes.Equal(n.Payload().Body, b) {
			t.Errorf("% x became % x", b, n.Payload().Body)
		}
		if n, err := ParseNotifyV1(b); err == nil && !bytes.Equal(n.Payload().Body, b) {
			t.Errorf("IKEv1: % x became % x", b, n.Payload().Body)
		}
	})
}

func FuzzTS(f *testing.F) {
	for _, tt := range bodies {
		if tt.typ == PayloadTSi || tt.typ == PayloadTSr {
			f.Add(unhex(f, tt.hex))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		fixedPoint(t, Payload{Type: PayloadTSi, Body: b})
		list, err := ParseTS(b)
		if err != nil {
			return
		}
		for _, s := range list {
			_ = s.String()
			if p, ok := s.Prefix(); ok && (SelectorOf(p).Start != s.Start || SelectorOf(p).End != s.End) {
				t.Errorf("%v to %v has the prefix %v", s.Start, s.End, p)
			}
		}
	})
}

func FuzzIdentity(f *testing.F) {
	f.Add(byte(IDIPv4Addr), []byte{203, 0, 113, 2})
	f.Add(byte(IDFQDN), []byte("moon.example.org"))
	f.Add(byte(IDDERASN1DN), unhex(f, "300f310d300b06035504030c046d6f6f6e"))
	f.Fuzz(func(t *testing.T, typ byte, b []byte) {
		s := Identity{IDType(typ), b}.String()
		if !printable(s) {
			t.Errorf("%q is not printable", s)
		}
		if id := IdentityOf(s); len(id.Data) > max(len(s), 16) {
			t.Errorf("%q became %d bytes", s, len(id.Data))
		}
		_ = VendorName(b)
	})
}

func FuzzTCP(f *testing.F) {
	f.Add(AppendTCP(nil, []byte("message")))
	f.Add([]byte("\x00\x02\x00\x03\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for len(b) > 0 {
			frame, rest, err := CutTCP(b)
			if err != nil || frame == nil {
				return
			}
			if len(frame)+2+len(rest) != len(b) {
				t.Fatalf("%d bytes became %d and %d", len(b), len(frame), len(rest))
			}
			b = rest
		}
	})
}
