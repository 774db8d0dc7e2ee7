package tcpsize

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/binary"

	"golang.org/x/crypto/cryptobyte"
)

// TLS records (RFC 8446 section 5.1) and handshake messages (section 4).
const (
	recordCCS, recordAlert, recordHandshake, recordData = 20, 21, 22, 23

	recordHeader    = 5
	maxRecord       = 1<<14 + 256 // section 5.2; 1<<14 in clear
	serverHello     = 2
	helloDone       = 14 // server_hello_done, of TLS 1.2 (RFC 5246 section 7.3)
	handshakeHeader = 4
)

// maxHello is the longest ClientHello, in bytes: one record.
const maxHello = recordHeader + 1<<14

// clientHello returns a ClientHello for TLS 1.2 and 1.3 in one record of size
// bytes, as far as that is possible, padded as RFC 7685 tells.
func clientHello(size int) []byte {
	size = min(size, maxHello)
	bare := buildHello(nil)
	if pad := size - len(bare) - 4; pad >= 0 { // 4 is the extension's header
		return buildHello(make([]byte, pad))
	}
	return bare
}

// suites are what clients commonly offer, so that servers, too, do as usual.
var suites = []uint16{
	0x1301, 0x1302, 0x1303, // TLS 1.3: AES-128-GCM, AES-256-GCM, CHACHA20
	0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, // ECDHE with them, for ECDSA and RSA
	0xc009, 0xc013, 0xc00a, 0xc014, 0x009c, 0x009d, 0x002f, 0x0035,
}

// Extensions and their values, from IANA's registry of TLS.
const (
	extGroups, extPoints, extAlgorithms, extPadding   = 10, 11, 13, 21
	extMasterSecret, extVersions, extPSKModes, extKey = 23, 43, 45, 51

	groupP256, groupP384, groupX25519 = 23, 24, 29
)

var algorithms = []uint16{
	0x0403, 0x0503, 0x0603, 0x0807, // ECDSA, Ed25519
	0x0804, 0x0805, 0x0806, 0x0401, 0x0501, 0x0601, // RSA
}

// buildHello leaves the padding out when it is nil.
func buildHello(padding []byte) []byte {
	random := make([]byte, 64)
	_, _ = rand.Read(random) // never fails
	// The private key is thrown away: the handshake ends with the answer.
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil // never; rand does not fail
	}
	list := func(b *cryptobyte.Builder, values ...uint16) {
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
			for _, v := range values {
				b.AddUint16(v)
			}
		})
	}
	var b cryptobyte.Builder
	extension := func(b *cryptobyte.Builder, typ uint16, f func(*cryptobyte.Builder)) {
		b.AddUint16(typ)
		b.AddUint16LengthPrefixed(f)
	}
	b.AddUint8(recordHandshake)
	b.AddUint16(0x0301) // for middleboxes, section 5.1
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
		b.AddUint8(1) // client_hello
		b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) {
			b.AddUint16(0x0303)
			b.AddBytes(random[:32])
			b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(random[32:]) }) // session
			list(b, suites...)
			b.AddBytes([]byte{1, 0}) // no compression
			b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
				extension(b, extGroups, func(b *cryptobyte.Builder) { list(b, groupX25519, groupP256, groupP384) })
				extension(b, extPoints, func(b *cryptobyte.Builder) { b.AddBytes([]byte{1, 0}) })
				extension(b, extAlgorithms, func(b *cryptobyte.Builder) { list(b, algorithms...) })
				extension(b, extMasterSecret, func(*cryptobyte.Builder) {})
				extension(b, extVersions, func(b *cryptobyte.Builder) { b.AddBytes([]byte{4, 3, 4, 3, 3}) })
				extension(b, extPSKModes, func(b *cryptobyte.Builder) { b.AddBytes([]byte{1, 1}) })
				extension(b, extKey, func(b *cryptobyte.Builder) {
					b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
						b.AddUint16(groupX25519)
						b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(key.PublicKey().Bytes()) })
					})
				})
				if padding != nil {
					extension(b, extPadding, func(b *cryptobyte.Builder) { b.AddBytes(padding) })
				}
			})
		})
	})
	return b.BytesOrPanic()
}

// isRecord reports whether an answer can begin a TLS record.
func isRecord(b []byte) bool {
	switch {
	case b[0] < recordCCS || b[0] > recordData:
		return false
	case len(b) >= 2 && b[1] != 3:
		return false
	case len(b) >= recordHeader && int(binary.BigEndian.Uint16(b[3:])) > maxRecord:
		return false
	}
	return true
}

// tlsProgress follows the records of a server's first flight. One of TLS 1.2
// ends with server_hello_done, in clear, and an alert ends any. The rest of one
// of TLS 1.3 is encrypted: between its records it may or may not have ended, as
// soon as there is one. Without any, it ends where another hello is asked for.
func tlsProgress(b []byte) progress {
	var messages []byte // the rest of the handshake in clear
	encrypted := false
	for len(b) > 0 {
		if !isRecord(b) {
			return strange
		}
		if len(b) < recordHeader {
			return partial
		}
		n := recordHeader + int(binary.BigEndian.Uint16(b[3:]))
		if len(b) < n {
			return partial
		}
		done := false
		switch b[0] {
		case recordAlert:
			done = true
		case recordHandshake:
			messages, done = skipMessages(append(messages, b[recordHeader:n]...))
		case recordData:
			encrypted = true
		}
		if done {
			return whole
		}
		b = b[n:]
	}
	switch {
	case len(messages) > 0:
		return partial
	case !encrypted:
		return waiting
	}
	return paused
}

// retryRandom begins the random of a server_hello that asks for another hello
// (RFC 8446 section 4.1.3), and ends the flight.
var retryRandom = []byte{0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91}

// skipMessages returns what follows the messages that are complete, and whether
// a server's last one is among them.
func skipMessages(b []byte) (rest []byte, done bool) {
	for len(b) >= handshakeHeader {
		n := handshakeHeader + int(b[1])<<16 + int(b[2])<<8 + int(b[3])
		if len(b) < n {
			break
		}
		hello := b[handshakeHeader:n]
		if b[0] == helloDone || b[0] == serverHello && len(hello) > 2 && bytes.HasPrefix(hello[2:], retryRandom) {
			return nil, true
		}
		b = b[n:]
	}
	return b, false
}
