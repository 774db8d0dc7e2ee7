package exporter

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"syscall"
	"time"

	"github.com/prometheus/exporter-toolkit/web"
	"golang.org/x/sync/errgroup"
)

// Limits that keep slow or malicious clients from holding connections. Reload
// is the slowest answer: it may have to resolve names.
const (
	headerTimeout   = 5 * time.Second
	readTimeout     = 10 * time.Second
	writeTimeout    = 60 * time.Second
	idleTimeout     = 2 * time.Minute
	shutdownTimeout = 3 * time.Second
	maxHeaderBytes  = 16 << 10
)

// Server is a set of open listeners that share one handler.
type Server struct {
	listeners []net.Listener
	webConfig string
	handler   http.Handler
	log       *slog.Logger
	patience  time.Duration // with requests in flight, when the server ends
}

// Listen opens every address, such as "127.0.0.1:9793", and checks the web
// configuration file, which sets TLS and basic authentication in the format of
// Prometheus' exporter-toolkit; "" means neither. Connections are accepted
// once [Server.Serve] runs.
func Listen(addresses []string, webConfig string, h http.Handler, log *slog.Logger) (*Server, error) {
	if len(addresses) == 0 {
		return nil, errors.New("no address to listen on: set listen, such as 127.0.0.1:9793")
	}
	s, err := NewServer(nil, webConfig, h, log)
	if err != nil {
		return nil, err
	}
	for _, address := range addresses {
		l, err := net.Listen("tcp", address)
		if err != nil {
			s.Close()
			return nil, listenError(address, err)
		}
		s.listeners = append(s.listeners, l)
	}
	return s, nil
}

// NewServer serves on listeners that are open already, such as those of
// systemd's socket activation.
func NewServer(listeners []net.Listener, webConfig string, h http.Handler, log *slog.Logger) (*Server, error) {
	if err := web.Validate(webConfig); err != nil {
		return nil, fmt.Errorf("web configuration %s: %w", webConfig, err)
	}
	return &Server{listeners: listeners, webConfig: webConfig, handler: h, log: log, patience: shutdownTimeout}, nil
}

// listenError says in one line what hinders and how to mend it.
func listenError(address string, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("cannot listen on %s: the port is in use: stop the other process (ss -ltnp shows it) or set another listen address", address)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("cannot listen on %s: a port below 1024 needs CAP_NET_BIND_SERVICE: set another listen address", address)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("cannot listen on %s: the address is not on this host: set another listen address", address)
	}
	return fmt.Errorf("cannot listen on %s: %w", address, err)
}

// Addrs returns the addresses that are listened on.
func (s *Server) Addrs() []net.Addr {
	addrs := make([]net.Addr, len(s.listeners))
	for i, l := range s.listeners {
		addrs[i] = l.Addr()
	}
	return addrs
}

// Close closes the listeners of a server that was not served.
func (s *Server) Close() {
	for _, l := range s.listeners {
		l.Close()
	}
}

// Serve answers requests until ctx ends, then lets those in flight finish for
// a few seconds. It returns nil after such an end.
func (s *Server) Serve(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, l := range s.listeners {
		// One http.Server each: the toolkit wraps the server's handler.
		server := &http.Server{
			Handler:           s.handler,
			ReadHeaderTimeout: headerTimeout,
			ReadTimeout:       readTimeout,
			WriteTimeout:      writeTimeout,
			IdleTimeout:       idleTimeout,
			MaxHeaderBytes:    maxHeaderBytes,
			ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		}
		group.Go(func() error {
			err := web.Serve(l, server, &web.FlagConfig{WebConfigFile: &s.webConfig}, s.log)
			if errors.Is(err, http.ErrServerClosed) {
				return nil
			}
			return fmt.Errorf("serve http on %s: %w", l.Addr(), err)
		})
		group.Go(func() error {
			<-ctx.Done()
			deadline, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.patience)
			defer cancel()
			if server.Shutdown(deadline) != nil {
				server.Close() // a client that never ends its request
			}
			l.Close() // when the toolkit failed before it served
			return nil
		})
	}
	return group.Wait()
}
