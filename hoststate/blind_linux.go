package hoststate

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"vpnprobe/evidence"
)

// CaptureBlind reports whether inbound ESP of the peer bypasses a packet
// capture on iface, and why. It does when the kernel decrypts within generic
// receive offload (GRO), before the packet reaches any tap
// (net/ipv4/esp4_offload.c, esp4_gro_receive): that takes the ESP offload
// code, GRO on the interface, and the inbound SA on this host.
//
// The answer is No only when one of the three is seen to be missing.
func (r *Reader) CaptureBlind(iface string, t evidence.Tunnel) (evidence.Fact, string) {
	sa := inboundESP(t)
	if sa == evidence.No {
		return evidence.No, ""
	}
	gro := groOn(iface)
	if gro == evidence.No {
		return evidence.No, ""
	}
	offload := r.espOffload()
	if offload == evidence.No {
		return evidence.No, ""
	}
	reason := fmt.Sprintf("ESP offload with GRO may take inbound ESP from the capture (ESP offload code: %s, GRO on %s: %s, inbound SA here: %s)", offload, iface, gro, sa)
	if offload == evidence.Yes && gro == evidence.Yes && sa == evidence.Yes {
		return evidence.Yes, reason
	}
	return evidence.Unknown, reason
}

// inboundESP reports whether this kernel has an SA that GRO would find. For
// ESP in UDP that is Unknown: it further takes UDP_GRO on the IKE daemon's
// socket, and Linux 6.7.
func inboundESP(t evidence.Tunnel) evidence.Fact {
	switch t.Readable {
	case evidence.No:
		return evidence.No // a kernel without IPsec
	case evidence.Unknown:
		return evidence.Unknown
	}
	found := evidence.No
	for _, sa := range t.SAs {
		switch {
		case !sa.Inbound || sa.Protocol != "esp":
		case sa.Encap:
			found = evidence.Unknown
		default:
			return evidence.Yes
		}
	}
	return found
}

// groOn reads the interface's GRO flag. GRO happens on the device that
// received the packet, so "off" on a device that stands on others says nothing.
func groOn(iface string) evidence.Fact {
	gro := &ethtoolValue{command: unix.ETHTOOL_GGRO}
	if err := ethtool(iface, gro); err != nil {
		return evidence.Unknown
	}
	if gro.data != 0 {
		return evidence.Yes
	}
	l, err := getLink(linkByName(iface))
	if err != nil || l.kind != "" && l.kind != "veth" {
		return evidence.Unknown
	}
	return evidence.No
}

// ethtoolValue is struct ethtool_value of linux/ethtool.h.
type ethtoolValue struct{ command, data uint32 }

// ethtool makes the ioctl of ethtool(8); reading needs no privilege.
func ethtool(iface string, value *ethtoolValue) error {
	if len(iface) >= unix.IFNAMSIZ {
		return unix.ENODEV
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	request := struct { // struct ifreq of linux/if.h
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [24 - unsafe.Sizeof(uintptr(0))]byte
	}{data: unsafe.Pointer(value)}
	copy(request.name[:], iface)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request)))
	runtime.KeepAlive(value)
	if errno != 0 {
		return errno
	}
	return nil
}

// espOffload reports whether the kernel's ESP offload code, for IPv4 or IPv6,
// is registered: as a loaded module, or built in, which only the list of the
// modules built in or the kernel's configuration tells.
func (r *Reader) espOffload() evidence.Fact {
	for _, module := range []string{"esp4_offload", "esp6_offload"} {
		_, err := os.Stat(filepath.Join(r.sys, "module", module))
		if err == nil {
			return evidence.Yes
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return evidence.Unknown
		}
	}
	if _, err := os.Stat(filepath.Join(r.sys, "module")); err != nil {
		return evidence.Unknown // no sysfs here
	}
	if built := r.builtinModule(); built.Known() {
		return built
	}
	return r.builtinConfig()
}

// builtinModule looks the offload code up in modules.builtin of the running
// kernel (kernel documentation, kbuild/kbuild.rst).
func (r *Reader) builtinModule() evidence.Fact {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return evidence.Unknown
	}
	f, err := os.Open(filepath.Join(r.lib, "modules", unix.ByteSliceToString(name.Release[:]), "modules.builtin"))
	if err != nil {
		return evidence.Unknown
	}
	defer f.Close()
	return anyLine(f, func(line string) bool {
		return strings.HasSuffix(line, "/esp4_offload.ko") || strings.HasSuffix(line, "/esp6_offload.ko")
	})
}

// builtinConfig looks the offload code up in the running kernel's own
// configuration, where the kernel shows it.
func (r *Reader) builtinConfig() evidence.Fact {
	f, err := os.Open(filepath.Join(r.proc, "config.gz"))
	if err != nil {
		return evidence.Unknown
	}
	defer f.Close()
	config, err := gzip.NewReader(f)
	if err != nil {
		return evidence.Unknown
	}
	return anyLine(config, func(line string) bool {
		return line == "CONFIG_INET_ESP_OFFLOAD=y" || line == "CONFIG_INET6_ESP_OFFLOAD=y"
	})
}

// anyLine reports whether a line of a text matches; Unknown when the text
// cannot be read to its end.
func anyLine(text io.Reader, match func(string) bool) evidence.Fact {
	lines := bufio.NewScanner(text)
	for lines.Scan() {
		if match(lines.Text()) {
			return evidence.Yes
		}
	}
	if lines.Err() != nil {
		return evidence.Unknown
	}
	return evidence.No
}
