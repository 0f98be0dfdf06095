// Requests of Go's net/http by HTTP/1.1 and by HTTP/2; says as JSON what came. Arguments: URL, file of authorities.
package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"sync"
	"time"
)

type said struct {
	Versions map[string]int    `json:"versions"`
	Statuses map[int]int       `json:"statuses"`
	Uploads  map[string]string `json:"uploads"`
	Downs    map[string]string `json:"downs"`
	Trailer  string            `json:"trailer"`
	Given    string            `json:"given"`
}

func must[T any](value T, err error) T {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return value
}

// A client that speaks one version alone. The address is not that of the name.
func client(base *url.URL, authorities *x509.CertPool, http2 bool) *http.Client {
	transport := &http.Transport{
		TLSClientConfig:       &tls.Config{RootCAs: authorities},
		ForceAttemptHTTP2:     http2,
		ExpectContinueTimeout: 10 * time.Second,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, "127.0.0.1:"+base.Port())
		},
	}
	if !http2 {
		transport.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
	}
	return &http.Client{Transport: transport, Timeout: 30 * time.Second}
}

func read(reply *http.Response) []byte {
	body := must(io.ReadAll(reply.Body))
	reply.Body.Close()
	return body
}

func ask(client *http.Client, base string) said {
	own := said{map[string]int{}, map[int]int{}, map[string]string{}, map[string]string{}, "", ""}
	var mutex sync.Mutex
	var all sync.WaitGroup
	for n := 0; n < 40; n++ {
		all.Add(1)
		go func(n int) {
			defer all.Done()
			reply := must(client.Get(fmt.Sprintf("%s/%d", base, n)))
			read(reply)
			mutex.Lock()
			defer mutex.Unlock()
			own.Versions[reply.Proto]++
			own.Statuses[reply.StatusCode]++
		}(n)
	}
	all.Wait()
	body := bytes.Repeat([]byte{7}, 5<<20)
	for _, way := range []string{"length", "chunked", "continue"} {
		// A reader of unknown length is sent without one.
		var from io.Reader = bytes.NewReader(body)
		if way == "chunked" {
			from = io.MultiReader(from)
		}
		request := must(http.NewRequest("POST", base+"/up", from))
		if way == "continue" {
			request.Header.Set("Expect", "100-continue")
		}
		own.Uploads[way] = string(read(must(client.Do(request))))
	}
	for _, way := range []string{"length", "chunked", "close"} {
		down := read(must(client.Get(base + "/down/" + way + "/5000000")))
		own.Downs[way] = fmt.Sprintf("%d %08x", len(down), crc32.Checksum(down, crc32.MakeTable(crc32.Castagnoli)))
	}
	request := must(http.NewRequest("POST", base+"/up", io.MultiReader(bytes.NewReader([]byte("some")))))
	request.Trailer = http.Header{"X-Sum": {"9"}}
	own.Given = string(read(must(client.Do(request))))
	request = must(http.NewRequest("GET", base+"/trailers", nil))
	request.Header.Set("TE", "trailers")
	trailing := must(client.Do(request))
	read(trailing)
	own.Trailer = trailing.Trailer.Get("X-Sum")
	return own
}

func main() {
	base := must(url.Parse(os.Args[1]))
	authorities := x509.NewCertPool()
	authorities.AppendCertsFromPEM(must(os.ReadFile(os.Args[2])))
	all := []said{}
	for _, http2 := range []bool{false, true} {
		all = append(all, ask(client(base, authorities, http2), os.Args[1]))
	}
	must(0, json.NewEncoder(os.Stdout).Encode(all))
}
