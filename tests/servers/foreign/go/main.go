// Go's net/http against us, both ways, over HTTP/1 and HTTP/2: its client and our server, our client and its server.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"
)

var foreign = os.Args[1]

func check(ok bool, what ...any) {
	if !ok {
		fmt.Println(what...)
		os.Exit(1)
	}
}

// What our server says, as it comes.
type lines struct {
	sync.Mutex
	all []string
}

func (l *lines) read(from io.Reader) {
	scanner := bufio.NewScanner(from)
	for scanner.Scan() {
		l.Lock()
		l.all = append(l.all, scanner.Text())
		l.Unlock()
	}
}

func (l *lines) waitFor(text string, count int) string {
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		l.Lock()
		found, last := 0, ""
		for _, line := range l.all {
			if strings.Contains(line, text) {
				found++
				last = line
			}
		}
		all := strings.Join(l.all, "\n")
		l.Unlock()
		if found >= count {
			return last
		}
		check(time.Now().Before(end), text, "is missing:", all)
	}
}

func itsClient() {
	server := exec.Command(foreign, "serve")
	stdin, _ := server.StdinPipe()
	stdout, _ := server.StdoutPipe()
	check(server.Start() == nil, "our server does not start")
	said := &lines{}
	go said.read(stdout)
	port := strings.Fields(said.waitFor("ports ", 1))[2]
	gone := 0
	for _, version := range []int{1, 2} {
		protocols := new(http.Protocols)
		protocols.SetHTTP1(version == 1)
		protocols.SetUnencryptedHTTP2(version == 2)
		client := &http.Client{Transport: &http.Transport{Protocols: protocols}}
		get := func(ctx context.Context, path, timeout string) (*http.Response, error) {
			request, _ := http.NewRequestWithContext(ctx, "GET", "http://127.0.0.1:"+port+path, nil)
			if timeout != "" {
				request.Header.Set("connect-timeout-ms", timeout)
			}
			return client.Do(request)
		}
		response, err := get(context.Background(), "/hello", "")
		check(err == nil, err)
		check(response.ProtoMajor == version, "HTTP/", response.ProtoMajor)
		body, err := io.ReadAll(response.Body)
		check(err == nil && string(body) == "hello", err)

		response, err = get(context.Background(), "/head", "100")
		check(err == nil && response.StatusCode == 504, err)
		check(response.Header.Get("X-Deadline-Expired") == "1", "no header")
		response, err = get(context.Background(), "/body", "100")
		check(err == nil && response.StatusCode == 200, err)
		_, err = io.ReadAll(response.Body)
		check(err != nil, "a clean end at our deadline")

		// Its own deadline, before the head; its own cancel, in the middle of the body.
		ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
		_, err = get(ctx, "/head", "")
		check(errors.Is(err, context.DeadlineExceeded), err)
		cancel()
		ctx, cancel = context.WithCancel(context.Background())
		response, err = get(ctx, "/body", "")
		check(err == nil, err)
		response.Body.Read(make([]byte, 1))
		cancel()
		gone += 2
		said.waitFor("ended the client is gone", gone)
		fmt.Printf("go: its client over HTTP/%d: our deadline is a 504 or no clean end, its context ends ours\n", version)
	}
	stdin.Close()
	server.Wait()
}

func itsServer() {
	ends := make(chan string, 8)
	mux := http.NewServeMux()
	mux.HandleFunc("/left", func(w http.ResponseWriter, r *http.Request) {
		millis, err := strconv.Atoi(r.Header.Get("connect-timeout-ms"))
		check(err == nil, err)
		fmt.Fprint(w, millis)
	})
	mux.HandleFunc("/wait", func(w http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		ends <- "wait"
	})
	mux.HandleFunc("/stream", func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			fmt.Fprint(w, "x")
			w.(http.Flusher).Flush()
			time.Sleep(time.Millisecond)
		}
		ends <- "stream"
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(err == nil, err)
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Handler: mux, Protocols: protocols}
	go server.Serve(listener)
	client := exec.Command(foreign, "http", strconv.Itoa(listener.Addr().(*net.TCPAddr).Port))
	client.Stdout, client.Stderr = os.Stdout, os.Stderr
	check(client.Run() == nil, "our client failed")
	for range 2 {
		select {
		case <-ends:
		case <-time.After(30 * time.Second):
			check(false, "its contexts do not end")
		}
	}
	fmt.Println("go: its server's contexts end with ours")
}

func main() {
	itsClient()
	itsServer()
}
