package ladder

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"vpnprobe/evidence"
	"vpnprobe/internal/wire/ike"
)

// echoes answers with arbitrary bytes behind a header that fits the request.
type echoes struct {
	sim
	data []byte
	n    int
}

func (e *echoes) Ask(_ context.Context, port uint16, b []byte, waits ...time.Duration) (evidence.IKEExchange, []byte, error) {
	ex := evidence.IKEExchange{Port: port, Bytes: len(b), Requests: len(waits), Outcome: evidence.IKESilent}
	if e.n++; e.n > 200 {
		e.t.Fatal("no end")
	}
	if len(e.data) < 2 {
		return ex, nil, nil
	}
	kind, n := e.data[0], min(int(e.data[1]), len(e.data)-2)
	body := e.data[2 : 2+n]
	e.data = slices.Concat(e.data[2+n:], e.data[:2+n]) // again and again
	h, _ := ike.ParseHeader(b)
	h.Version, h.Exchange, h.Flags = ike.V2, ike.SAInit, ike.FlagResponse
	var reply []byte
	switch kind % 8 {
	case 0:
		return ex, nil, nil
	case 1: // what was asked, taken
		m, _ := ike.Parse(b)
		m.Flags, m.SPIr = ike.FlagResponse, ike.SPI{1}
		reply = m.Append(nil)
	case 2:
		reply = ike.Message{Header: h, Payloads: []ike.Payload{{Type: ike.PayloadSA, Body: body}}}.Append(nil)
	case 3:
		h.Version, h.Exchange = ike.V1, ike.IdentityProtectionV1
		reply = ike.Message{Header: h, Payloads: []ike.Payload{{Type: ike.PayloadSAV1, Body: body}}}.Append(nil)
	case 4:
		reply = ike.Message{Header: h, Payloads: []ike.Payload{{Type: ike.PayloadNotify, Body: body}}}.Append(nil)
	case 5:
		h.Version, h.Exchange = ike.V1, ike.InformationalV1
		reply = ike.Message{Header: h, Payloads: []ike.Payload{{Type: ike.PayloadNotifyV1, Body: body}}}.Append(nil)
	case 6:
		reply = ike.Message{Header: h, Payloads: []ike.Payload{ike.Notify{Type: ike.InvalidKEPayload, Data: body}.Payload()}}.Append(nil)
	default:
		reply = body
	}
	ex.Outcome = evidence.IKEAnswered
	if m, err := ike.Parse(reply); err == nil {
		ex.Version, ex.Notify = m.Version.String(), m.FirstNotify()
	}
	return ex, reply, nil
}

// FuzzClimb holds a run to its bounds whatever the peer answers.
func FuzzClimb(f *testing.F) {
	f.Add([]byte{6, 2, 0, 14, 4, 4, 0, 0, 0, 14}, uint8(2), true)
	f.Add([]byte{4, 4, 0, 0, 0, 14, 6, 2, 0, 14}, uint8(2), true)
	f.Add([]byte{4, 4, 0, 0, 0, 14, 6, 2, 0, 19, 6, 2, 0, 1, 1, 0}, uint8(2), true)
	f.Add([]byte{1, 0}, uint8(0), true)
	f.Add([]byte{5, 12, 0, 0, 0, 1, 1, 0, 0, 14, 0, 0, 0, 0, 1, 0, 0, 0}, uint8(1), true)
	f.Add([]byte{4, 4, 0, 0, 64, 6}, uint8(2), false)
	f.Fuzz(func(t *testing.T, data []byte, version uint8, stateful bool) {
		synctest.Test(t, func(t *testing.T) {
			cfg := Config{
				Target: simPeer, Version: int(version % 3), Proposals: []string{good, "aes128gcm16-prfsha256-ecp256"},
				Stateful: stateful, Timeout: DefaultTimeout,
			}
			g := &simGate{t: t}
			out := climb(t.Context(), cfg, &echoes{sim: sim{t: t}, data: data}, g)
			if len(out.Exchanges) > maxRequests || g.out > 1 {
				t.Errorf("%d exchanges, %d permits", len(out.Exchanges), g.out)
			}
			for _, m := range out.Mismatches {
				if out.V2.Declared != evidence.No && out.Main.Declared != evidence.No && out.Aggressive.Declared != evidence.No {
					t.Errorf("mismatch %+v of what is not refused", m)
				}
			}
		})
	})
}
