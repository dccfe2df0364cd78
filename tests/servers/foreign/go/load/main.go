// Go's column of bench.sh.
//
//	load serve    a hello on a port of its own, which it says; until stdin ends
//	load reset    from a client's cancel to the end of the handler's context, beside about 10,000 idle connections
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"time"
)

const idle, resets = 9_900, 2_000

func main() {
	begun := make(chan context.Context, 1)
	mux := http.NewServeMux()
	mux.HandleFunc("/hello", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") })
	mux.HandleFunc("/timeout", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), 30*time.Second)
		defer cancel()
		if ctx.Err() == nil {
			io.WriteString(w, "hello")
		}
	})
	mux.HandleFunc("/wait", func(w http.ResponseWriter, r *http.Request) {
		begun <- r.Context()
		<-r.Context().Done()
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	go (&http.Server{Handler: mux, Protocols: protocols}).Serve(listener)
	to := listener.Addr().(*net.TCPAddr)
	if os.Args[1] == "serve" {
		fmt.Println(to.Port)
		io.Copy(io.Discard, os.Stdin)
		return
	}
	var all []net.Conn
	for range idle {
		connection, err := net.Dial("tcp", to.String())
		if err != nil {
			break
		}
		all = append(all, connection)
	}
	only := new(http.Protocols)
	only.SetUnencryptedHTTP2(true)
	client := &http.Client{Transport: &http.Transport{Protocols: only}}
	var times []time.Duration
	for range resets {
		ctx, cancel := context.WithCancel(context.Background())
		request, _ := http.NewRequestWithContext(ctx, "GET", "http://"+to.String()+"/wait", nil)
		gone := make(chan bool)
		go func() { client.Do(request); close(gone) }()
		there := <-begun
		begin := time.Now()
		cancel()
		<-there.Done()
		times = append(times, time.Since(begin))
		<-gone
	}
	slices.Sort(times)
	fmt.Printf("Go: from a cancel to the end of the context, beside %d connections: p50 %v, p99 %v, most %v\n",
		len(all), times[len(times)/2], times[len(times)*99/100], times[len(times)-1])
}
