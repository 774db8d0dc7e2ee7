package ike

import (
	"bytes"
	"testing"
)

// initMessages returns a complete IKE_SA_INIT request and its answer, with
// what real daemons put into them.
func initMessages(f testing.TB) (request, response Message) {
	f.Helper()
	suite := func(words ...string) (list []Transform) {
		for _, word := range words {
			t, ok := TransformOf(word)
			if !ok {
				f.Fatal(word)
			}
			list = append(list, t)
		}
		return list
	}
	hash, public, nonce := make([]byte, 20), make([]byte, 256), make([]byte, 32)
	common := []Payload{
		KE(GroupMODP2048, public),
		Nonce(nonce),
		Notify{Type: NATDetectionSourceIP, Data: hash}.Payload(),
		Notify{Type: NATDetectionDestinationIP, Data: hash}.Payload(),
		Notify{Type: FragmentationSupported}.Payload(),
		Notify{Type: ChildlessSupported}.Payload(),
	}
	for _, v := range vendors[:6] {
		common = append(common, VendorID(unhex(f, v.id)))
	}
	offer := SA(
		Proposal{Protocol: ProtocolIKE, Transforms: suite("aes128", "aes256", "sha256", "sha384", "prfsha256", "prfsha384", "modp2048", "ecp256", "curve25519")},
		Proposal{Protocol: ProtocolIKE, Transforms: suite("aes128gcm16", "aes256gcm16", "prfsha256", "prfsha384", "modp2048", "ecp256", "curve25519")},
	)
	choice := SA(Proposal{Protocol: ProtocolIKE, Transforms: suite("aes256", "sha256", "prfsha256", "modp2048")})
	h := Header{SPIi: SPI{1}, Version: V2, Exchange: SAInit, Flags: FlagInitiator}
	request = Message{Header: h, Payloads: append([]Payload{offer}, common...)}
	h.SPIr, h.Flags = SPI{2}, FlagResponse
	response = Message{Header: h, Payloads: append([]Payload{choice}, common...)}
	return request, response
}

// read parses a message and all its payloads.
func read(t testing.TB, b []byte) {
	m, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range m.Payloads {
		switch p.Type {
		case PayloadSA:
			_, err = ParseSA(p.Body)
		case PayloadKE:
			_, err = ParseKE(p.Body)
		case PayloadNotify:
			_, err = ParseNotify(p.Body)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestAllocations(t *testing.T) {
	request, response := initMessages(t)
	offer, b := request.Append(nil), response.Append(nil)
	for name, tt := range map[string]struct {
		most float64
		run  func()
	}{
		"parse a response":           {1, func() { _, _ = Parse(b) }},
		"parse a response in full":   {3, func() { read(t, b) }}, // the payloads, the proposals and their transforms
		"parse a request in full":    {3, func() { read(t, offer) }},
		"append to a buffer":         {0, func() { _ = request.Append(offer[:0]) }},
		"append to nothing":          {2, func() { _ = request.Append(nil) }}, // the race detector makes one
		"build a notify":             {1, func() { _ = Notify{Data: b[:20]}.Payload() }},
		"refuse what is not a chain": {4, func() { _, _ = Parse(bytes.Repeat([]byte{255}, 28)) }},
	} {
		if got := testing.AllocsPerRun(100, tt.run); got > tt.most {
			t.Errorf("%s: %v allocations, %v at most", name, got, tt.most)
		}
	}
}

func BenchmarkParse(b *testing.B) {
	_, response := initMessages(b)
	msg := response.Append(nil)
	b.SetBytes(int64(len(msg)))
	b.ReportAllocs()
	for b.Loop() {
		read(b, msg)
	}
}

func BenchmarkBuild(b *testing.B) {
	transforms := make([]Transform, 0, 4)
	for _, word := range []string{"aes256", "sha256", "prfsha256", "modp2048"} {
		t, _ := TransformOf(word)
		transforms = append(transforms, t)
	}
	hash, public, nonce := make([]byte, 20), make([]byte, 256), make([]byte, 32)
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = Message{
			Header: Header{SPIi: SPI{1}, Version: V2, Exchange: SAInit, Flags: FlagInitiator},
			Payloads: []Payload{
				SA(Proposal{Protocol: ProtocolIKE, Transforms: transforms}),
				KE(GroupMODP2048, public),
				Nonce(nonce),
				Notify{Type: NATDetectionSourceIP, Data: hash}.Payload(),
				Notify{Type: NATDetectionDestinationIP, Data: hash}.Payload(),
			},
		}.Append(buf[:0])
	}
	b.SetBytes(int64(len(buf)))
}
