package tcpsize

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"strings"
)

const (
	sshKexInit = 20 // SSH_MSG_KEXINIT, RFC 4253 section 7.1
	// maxSSHPacket is the longest packet that every implementation takes, in
	// bytes (section 6.1), and the longest that we believe.
	maxSSHPacket = 35000
	// maxSSHLines bounds what may precede the version, in bytes. Section 4.2
	// permits lines and names no limit; OpenSSH takes 8 KiB, too.
	maxSSHLines = 8 << 10
)

// sshVersion names us in the log of the server (section 4.2).
const sshVersion = "SSH-2.0-vpnprobe\r\n"

// The offers of a key exchange, in the order of section 7.1.
var sshOffers = [10]string{
	"curve25519-sha256,curve25519-sha256@libssh.org,ecdh-sha2-nistp256,diffie-hellman-group14-sha256",
	"ssh-ed25519,ecdsa-sha2-nistp256,rsa-sha2-512,rsa-sha2-256",
	"aes128-gcm@openssh.com,aes256-gcm@openssh.com,aes128-ctr,aes256-ctr",
	"aes128-gcm@openssh.com,aes256-gcm@openssh.com,aes128-ctr,aes256-ctr",
	"hmac-sha2-256,hmac-sha2-512",
	"hmac-sha2-256,hmac-sha2-512",
	"none",
	"none",
}

// keyExchange returns our version and an SSH_MSG_KEXINIT, together of size
// bytes or a few more, as far as a packet may be so long. Names that the server
// does not know fill it, which it passes over (section 7.1).
func keyExchange(size int) []byte {
	size = min(size, len(sshVersion)+maxSSHPacket-100)
	offers := sshOffers
	bare := sshPacket(offers)
	offers[0] += sshNames(size - len(sshVersion) - len(bare))
	return append([]byte(sshVersion), sshPacket(offers)...)
}

// sshNames returns a list of n bytes or a few more that can be added to
// another.
func sshNames(n int) string {
	var b strings.Builder
	for i := 0; b.Len() < n; i++ {
		// At most 64 bytes, with a domain that nobody has (RFC 4251 section 6).
		fmt.Fprintf(&b, ",size-%04d@vpnprobe.invalid", i)
	}
	return b.String()
}

func sshPacket(offers [10]string) []byte {
	payload := append([]byte{sshKexInit}, make([]byte, 16)...)
	_, _ = rand.Read(payload[1:]) // the cookie; never fails
	for _, o := range offers {
		payload = binary.BigEndian.AppendUint32(payload, uint32(len(o)))
		payload = append(payload, o...)
	}
	payload = append(payload, 0, 0, 0, 0, 0) // no guess follows; reserved

	// Section 6: the packet is a multiple of 8, with 4 or more bytes of padding.
	pad := 8 - (4+1+len(payload))%8
	if pad < 4 {
		pad += 8
	}
	b := binary.BigEndian.AppendUint32(nil, uint32(1+len(payload)+pad))
	b = append(b, byte(pad))
	return append(append(b, payload...), make([]byte, pad)...)
}

// sshProgress follows a server's version and key exchange offer.
func sshProgress(b []byte) progress {
	end := bytes.IndexByte(b, '\n')
	switch {
	case end < 0 && len(b) > maxSSHLines:
		return strange
	case end < 0 || end+1 == len(b):
		return waiting // servers may take their time between the two
	}
	b = b[end+1:]
	if len(b) < 6 {
		return partial
	}
	length := binary.BigEndian.Uint32(b)
	if length < 2 || length > maxSSHPacket {
		return strange
	}
	if b[5] != sshKexInit {
		return whole // it says something else, such as goodbye
	}
	if uint32(len(b)-4) < length {
		return partial
	}
	return whole
}
