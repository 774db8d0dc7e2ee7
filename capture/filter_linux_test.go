package capture

import (
	"fmt"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"vpnprobe/internal/netnstest"
)

// The longest filters must find room where one replaces the other with the
// kernel's least allowance, net.core.optmem_max of before Linux 6.7.
func TestFilterRoom(t *testing.T) {
	if !netnstest.Child(t) {
		return
	}
	if err := os.WriteFile("/proc/sys/net/core/optmem_max", []byte("20480"), 0); err != nil {
		t.Skipf("the allowance cannot be set in a namespace: %v", err)
	}
	for _, mix := range []struct{ six, six2 bool }{{false, false}, {true, true}, {false, true}} {
		p := Peer{Name: "p"}
		for i := range maxFilterAddrs {
			a := netip.AddrFrom4([4]byte{198, 18, 1, byte(i)})
			if mix.six {
				a = netip.AddrFrom16([16]byte{0x20, 1, 15: byte(i)})
			}
			p.Addrs = append(p.Addrs, a)
		}
		for i := range maxWatched {
			r := prefix(fmt.Sprintf("10.%d.0.0/17", i))
			if mix.six2 {
				r = prefix(fmt.Sprintf("2001:db8:%d:4:5:6:7:0/127", i))
			}
			p.Remote = append(p.Remote, r)
		}
		prog, err := NewObserver([]Peer{p}).filter(LinkEthernet)
		if err != nil {
			t.Fatal(err)
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		for n := range 2 {
			if err := attachFilter(fd, prog); err != nil {
				t.Errorf("%+v: %d instructions, attached %d times: %v", mix, len(prog), n, err)
			}
		}
		unix.Close(fd)
	}
}

func attachFilter(fd int, prog []bpf.RawInstruction) error {
	list := make([]unix.SockFilter, len(prog))
	for i, ins := range prog {
		list[i] = unix.SockFilter{Code: ins.Op, Jt: ins.Jt, Jf: ins.Jf, K: ins.K}
	}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(list)), Filter: &list[0]})
}
