package tcpsize

import (
	"os"
	"time"

	"golang.org/x/sys/unix"

	"vpnprobe/evidence"
)

// tcpiOptTimestamps is TCPI_OPT_TIMESTAMPS (linux/tcp.h), which package unix
// lacks.
const tcpiOptTimestamps = 1

// state asks the kernel for TCP_INFO.
func (c *connection) state() (state, error) {
	var info *unix.TCPInfo
	var err error
	if e := c.raw.Control(func(fd uintptr) {
		info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	}); e != nil {
		return state{}, e
	}
	if err != nil {
		return state{}, os.NewSyscallError("getsockopt TCP_INFO", err)
	}
	return state{
		timestamps: info.Options&tcpiOptTimestamps != 0,
		sendMSS:    int(info.Snd_mss),
		receiveMSS: int(info.Rcv_mss),
		advMSS:     int(info.Advmss),
		pathMTU:    int(info.Pmtu),
		acked:      info.Bytes_acked,
		received:   info.Bytes_received,
		segments:   info.Data_segs_in,
		outOfOrder: info.Rcv_ooopack,
		repeated:   int(info.Total_retrans),
		rtt:        time.Duration(info.Rtt) * time.Microsecond,
	}, nil
}

// announced returns the MSS that the target announced.
func (c *connection) announced(s state) evidence.Opt[int] {
	if _, ok := c.synMSS.Get(); ok {
		return c.synMSS
	}
	return s.peerMSS(c.v6)
}
