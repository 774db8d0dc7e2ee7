package ikecrypto

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"net/netip"
	"os"
	"testing"

	"vpnprobe/internal/wire/ike"
)

// recordings are negotiations that TestStrongSwan had with strongSwan 5.9.8,
// as it writes them with -record.
type recordings struct {
	V2 []recording
	V1 []recordingV1
}

// recording is an IKE_SA_INIT and an IKE_AUTH without a Child SA, where both
// ends have the key testPSK.
type recording struct {
	Proposal                  string
	Shared                    hexBytes // the secret of the key exchange
	InitRequest, InitResponse hexBytes
	AuthRequest               hexBytes
	AuthResponse              []hexBytes // one message, or its fragments
}

// recordingV1 is the first two messages of an IKEv1 aggressive mode.
type recordingV1 struct {
	Proposal          string
	Request, Response hexBytes
}

const (
	recordingsFile = "testdata/strongswan.json"
	testPSK        = "a pre-shared key for tests only"
)

// responderAddr is where strongSwan was.
var responderAddr = netip.MustParseAddrPort("192.0.2.1:500")

// hexBytes are bytes that JSON has in hexadecimal.
type hexBytes []byte

func (b hexBytes) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, b), nil }

func (b *hexBytes) UnmarshalText(text []byte) (err error) {
	*b, err = hex.AppendDecode(nil, text)
	return err
}

func TestRecordings(t *testing.T) {
	file, err := os.ReadFile(recordingsFile)
	if err != nil {
		t.Fatal(err)
	}
	var r recordings
	if err := json.Unmarshal(file, &r); err != nil {
		t.Fatal(err)
	}
	if len(r.V2) < 8 || len(r.V1) < 2 {
		t.Errorf("%d and %d recordings only", len(r.V2), len(r.V1))
	}
	for _, rec := range r.V2 {
		t.Run(rec.Proposal, func(t *testing.T) { rec.check(t) })
	}
	for _, rec := range r.V1 {
		t.Run(rec.Proposal, func(t *testing.T) { rec.check(t) })
	}
}

// keys derives the keys as the initiator did.
func (r recording) keys(t *testing.T) (k *Keys, ni, nr []byte) {
	t.Helper()
	request, response := parse(t, r.InitRequest), parse(t, r.InitResponse)
	proposals, err := ike.ParseSA(body(t, response, ike.PayloadSA))
	if err != nil || len(proposals) != 1 {
		t.Fatalf("chosen proposals %+v, %v", proposals, err)
	}
	suite, err := NewSuite(proposals[0])
	if err != nil {
		t.Fatal(err)
	}
	ni, nr = body(t, request, ike.PayloadNonce), body(t, response, ike.PayloadNonce)
	return suite.Keys(r.Shared, ni, nr, request.SPIi, response.SPIr), ni, nr
}

// check reads everything that both ends have sent and verifies it.
func (r recording) check(t *testing.T) {
	t.Helper()
	k, ni, nr := r.keys(t)
	request, err := k.Open(r.AuthRequest)
	if err != nil {
		t.Fatal("IKE_AUTH request: ", err)
	}
	checkAuth(t, request, k.AuthPSK(true, []byte(testPSK), r.InitRequest, nr, body(t, request, ike.PayloadIDi)))

	response, err := openAll(k, r.AuthResponse)
	if err != nil {
		t.Fatal("IKE_AUTH response: ", err)
	}
	id := body(t, response, ike.PayloadIDr)
	checkAuth(t, response, k.AuthPSK(false, []byte(testPSK), r.InitResponse, ni, id))
	if got, err := ike.ParseIdentity(id); err != nil || got.String() != "responder.example" {
		t.Errorf("identity %v, %v", got, err)
	}
	checkNATDetection(t, parse(t, r.InitResponse))
}

// openAll opens a message or its fragments.
func openAll(k *Keys, list []hexBytes) (ike.Message, error) {
	if len(list) == 1 {
		return k.Open(list[0])
	}
	var fragments [][]byte
	for _, b := range list {
		fragments = append(fragments, b)
	}
	return k.OpenFragments(fragments)
}

func checkAuth(t *testing.T, m ike.Message, want []byte) {
	t.Helper()
	auth, err := ike.ParseAuth(body(t, m, ike.PayloadAuth))
	if err != nil || auth.Method != ike.AuthSharedKey || !bytes.Equal(auth.Data, want) {
		t.Errorf("%v: AUTH %+v, %v, want %x", m.Exchange, auth, err, want)
	}
}

// checkNATDetection looks whether the responder's hash of its own address is
// ours.
func checkNATDetection(t *testing.T, m ike.Message) {
	t.Helper()
	want, seen := NATDetection(m.SPIi, m.SPIr, responderAddr), false
	for _, p := range m.Payloads {
		if n, err := ike.ParseNotify(p.Body); p.Type == ike.PayloadNotify && err == nil && n.Type == ike.NATDetectionSourceIP {
			seen = true
			if !bytes.Equal(n.Data, want[:]) {
				t.Errorf("NAT detection of the source %x, want %x", n.Data, want)
			}
		}
	}
	if !seen {
		t.Error("no NAT detection of the source")
	}
}

func (r recordingV1) check(t *testing.T) {
	t.Helper()
	request, response := parse(t, r.Request), parse(t, r.Response)
	sa, err := ike.ParseSAV1(body(t, response, ike.PayloadSAV1))
	if err != nil {
		t.Fatal(err)
	}
	p := PhaseOne{
		CookieI: response.SPIi, CookieR: response.SPIr,
		NonceI: body(t, request, ike.PayloadNonceV1), NonceR: body(t, response, ike.PayloadNonceV1),
		PublicI: body(t, request, ike.PayloadKEV1), PublicR: body(t, response, ike.PayloadKEV1),
		SAi: body(t, request, ike.PayloadSAV1),
	}
	for _, a := range sa.Proposals[0].Transforms[0].Attributes {
		if a.Type == ike.AttrV1Hash {
			p.Hash = a.Value
		}
	}
	id, sent := body(t, response, ike.PayloadIDV1), body(t, response, ike.PayloadHashV1)
	if hash, ok := p.HashR([]byte(testPSK), id); !ok || !bytes.Equal(hash, sent) {
		t.Errorf("HASH_R %x, want %x", hash, sent)
	}
	if hash, ok := p.HashR([]byte("another"), id); !ok || bytes.Equal(hash, sent) {
		t.Error("another key gives the same HASH_R")
	}
	// Seen from the other end, the initiator is the responder.
	p.CookieI, p.CookieR, p.PublicI, p.PublicR = p.CookieR, p.CookieI, p.PublicR, p.PublicI
	if hash, ok := p.HashI([]byte(testPSK), id); !ok || !bytes.Equal(hash, sent) {
		t.Errorf("HASH_I %x, want %x", hash, sent)
	}
	p.Hash = ike.HashV1Tiger
	if hash, ok := p.HashR([]byte(testPSK), id); ok || hash != nil {
		t.Errorf("unknown hash algorithm: %x", hash)
	}
}

func parse(t *testing.T, b []byte) ike.Message {
	t.Helper()
	m, err := ike.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func body(t *testing.T, m ike.Message, p ike.PayloadType) []byte {
	t.Helper()
	payload, ok := m.First(p)
	if !ok {
		t.Fatalf("%v message without %v but %q", m.Exchange, p, m.FirstNotify())
	}
	return payload.Body
}

// RFC 7296 section 2.23, with IPv4 in both of its forms, and IPv6.
func TestNATDetection(t *testing.T) {
	a := NATDetection(testSPIi, testSPIr, netip.MustParseAddrPort("192.0.2.1:500"))
	b := NATDetection(testSPIi, testSPIr, netip.MustParseAddrPort("[::ffff:192.0.2.1]:500"))
	// printf '\1\2\3\4\5\6\7\10\13\14\15\16\17\20\21\22\300\0\2\1\1\364' | sha1sum
	want := unhex(t, "13d9f89c5afd38bb4eca39a4a8cf984898b68184")
	if !bytes.Equal(a[:], want) || a != b {
		t.Errorf("IPv4: %x and %x, want %x", a, b, want)
	}
	c := NATDetection(testSPIi, ike.SPI{}, netip.MustParseAddrPort("[2001:db8::1]:4500"))
	want = unhex(t, "98c75483db80168697635aa7844504963e87de33")
	if !bytes.Equal(c[:], want) {
		t.Errorf("IPv6: %x, want %x", c, want)
	}
}
