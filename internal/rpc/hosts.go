package rpc

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"

	"connectrpc.com/connect/v2"

	"github.com/headgate/headgate/internal/excerpt"
)

// localHosts rejects requests whose Host is the DNS name of another machine, with 421 (RFC 9110 §7.4).
// Otherwise a web page of that name could call the server and read the answers, by changing the name's
// address to the one of this machine (DNS rebinding). IP addresses, localhost and its subdomains
// (RFC 6761 §6.3), and the machine's name are admitted.
func localHosts(next http.Handler) http.Handler {
	machine, err := os.Hostname()
	if err != nil {
		machine = "localhost"
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if isLocalHost(r.Host, machine) {
			next.ServeHTTP(w, r)
			return
		}
		message := fmt.Sprintf("the host %q is not this process's: call it by its IP address or as localhost",
			excerpt.Text(r.Host, excerpt.Name))
		body, _ := json.Marshal(
			map[string]string{"code": connect.CodePermissionDenied.String(), "message": message},
		) // strings
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusMisdirectedRequest)
		_, _ = w.Write(body) // it fails if the client has disconnected
	})
}

// isLocalHost reports whether a Host field names this machine. Programs may send none; browsers send one.
func isLocalHost(host, machine string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if host == "" || host == "localhost" || strings.HasSuffix(host, ".localhost") || host == strings.ToLower(machine) {
		return true
	}
	_, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"))
	return err == nil
}
