package natsclient_test

import (
	"io"
	"net"
	"testing"

	"github.com/headgate/headgate/internal/natsclient"
)

// A proxy accepts connections although no server is behind it, and a server that starts or ends closes them at any
// time: a process that starts waits for it.
func TestAway_ConnectionThatIsClosedBeforeItIsReady(t *testing.T) {
	t.Parallel()
	const info = `INFO {"server_id":"x","version":"2.15.0","proto":1,"max_payload":1048576}`
	for name, serve := range map[string]func(*net.TCPConn) error{
		"immediately":            func(*net.TCPConn) error { return nil },
		"by a reset":             func(conn *net.TCPConn) error { return conn.SetLinger(0) },
		"within the first line":  func(conn *net.TCPConn) error { _, err := io.WriteString(conn, info[:9]); return err },
		"after the first line":   func(conn *net.TCPConn) error { _, err := io.WriteString(conn, info+"\r\n"); return err },
		"after an answer's part": func(conn *net.TCPConn) error { _, err := io.WriteString(conn, info+"\r\n+O"); return err },
	} {
		listener, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan error, 1)
		go func() {
			conn, err := listener.AcceptTCP()
			if err == nil {
				err = serve(conn)
				_ = conn.Close()
			}
			served <- err
		}()
		conn, err := natsclient.Connect("nats://"+listener.Addr().String(), t.Name())
		if err == nil {
			conn.Close()
			t.Errorf("%s: it is connected", name)
		} else if !natsclient.Away(err) {
			t.Errorf("%s: %v is no temporary failure", name, err)
		}
		_ = listener.Close()
		if err := <-served; err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
