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
	for name, text := range map[string]string{
		"immediately": "", "within the first line": info[:9], "after the first line": info + "\r\n",
		"within an answer": info + "\r\n+O",
	} {
		listener, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan error, 1)
		go func() {
			conn, err := listener.AcceptTCP()
			if err == nil {
				_, err = io.WriteString(conn, text)
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
