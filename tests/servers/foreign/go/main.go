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

// How many of the lines begin so, and the last of them.
func (l *lines) find(text string) (found int, last string) {
	l.Lock()
	defer l.Unlock()
	for _, line := range l.all {
		if strings.HasPrefix(line, text) {
			found++
			last = line
		}
	}
	return
}

func (l *lines) waitFor(text string, count int) string {
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		found, last := l.find(text)
		if found >= count {
			return last
		}
		l.Lock()
		all := strings.Join(l.all, "\n")
		l.Unlock()
		check(time.Now().Before(end), text, "is missing:", all)
	}
}

// The requests without a deadline of ours that have begun.
func (l *lines) begun() int {
	all, _ := l.find("begun")
	others, _ := l.find("begun with a deadline")
	return all - others
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
		// Long enough for a body to begin, in one of the attempts.
		for limit := 1000; ; limit *= 8 {
			check(limit < 100_000, "no body before our deadline")
			response, err = get(context.Background(), "/body", strconv.Itoa(limit))
			check(err == nil && (response.StatusCode == 200 || response.StatusCode == 504), err)
			_, err = io.ReadAll(response.Body)
			if response.StatusCode == 200 {
				check(err != nil, "a clean end at our deadline")
				break
			}
		}

		// Its own deadline, before the head: long enough for the request to begin here, in one of the attempts. The one that was
		// answered has begun, too.
		said.waitFor("ended the response is complete", version)
		before := said.begun()
		for timeout := 200 * time.Millisecond; said.begun() == before; timeout *= 4 {
			check(timeout < time.Minute, "never begun in time")
			ctx, cancel := context.WithTimeout(context.Background(), timeout)
			_, err = get(ctx, "/head", "")
			check(errors.Is(err, context.DeadlineExceeded), err)
			cancel()
		}
		gone += said.begun() - before
		said.waitFor("ended the client is gone", gone)
		// Its own cancel, in the middle of the body.
		ctx, cancel := context.WithCancel(context.Background())
		response, err = get(ctx, "/body", "")
		check(err == nil, err)
		count, err := response.Body.Read(make([]byte, 1))
		check(count == 1 && err == nil, err)
		cancel()
		gone++
		said.waitFor("ended the client is gone", gone)
		fmt.Printf("go: its client over HTTP/%d: our deadline is a 504 or no clean end, its context ends ours\n", version)
	}
	stdin.Close()
	server.Wait()
}

func itsServer() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(err == nil, err)
	client := exec.Command(foreign, "http", strconv.Itoa(listener.Addr().(*net.TCPAddr).Port))
	client.Stdout, client.Stderr = os.Stdout, os.Stderr
	stdin, err := client.StdinPipe()
	check(err == nil, err)
	// What is said to our client, which waits for it: each handler that has begun, and that it is over.
	say := func(what string) {
		_, err := fmt.Fprintln(stdin, what)
		check(err == nil, err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/left", func(w http.ResponseWriter, r *http.Request) {
		millis, err := strconv.Atoi(r.Header.Get("connect-timeout-ms"))
		check(err == nil, err)
		fmt.Fprint(w, millis)
	})
	mux.HandleFunc("/wait", func(w http.ResponseWriter, r *http.Request) {
		say("begun /wait")
		<-r.Context().Done()
		say("over /wait")
	})
	mux.HandleFunc("/stream", func(w http.ResponseWriter, r *http.Request) {
		for n := 0; r.Context().Err() == nil; n++ {
			fmt.Fprint(w, "x")
			w.(http.Flusher).Flush()
			if n == 10 {
				say("begun /stream")
			}
			time.Sleep(time.Millisecond)
		}
		say("over /stream")
	})
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Handler: mux, Protocols: protocols}
	go server.Serve(listener)
	check(client.Run() == nil, "our client failed")
	fmt.Println("go: its server's contexts end with ours")
}

func main() {
	itsClient()
	itsServer()
}
