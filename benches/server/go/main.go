// The front of examples/search-server that searches by itself, as one writes it in Go: the same files, the same threads (goroutines here),
// the same JSON, a line of the log and an event for each search.
//
//	search DIR ADDR:PORT EVENTS
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unicode/utf8"
)

const longestFile = 4 << 20

var errShutdown = errors.New("the server ends")

type hit struct {
	Path string `json:"path"`
	Line int    `json:"line"`
	Text string `json:"text"`
}

type server struct {
	root   string
	paths  []string
	places chan struct{}
	each   int
	events *os.File
	wg     sync.WaitGroup
	last   atomic.Int64
	ended  context.Context
}

func main() {
	if len(os.Args) != 4 {
		log.Fatal("search DIR ADDR:PORT EVENTS")
	}
	each := runtime.NumCPU()
	ended, end := context.WithCancelCause(context.Background())
	s := &server{root: os.Args[1], each: each, places: make(chan struct{}, 2*each), ended: ended}
	// In the order of the others: as the directories have them, the last directory first.
	for directories := []string{""}; len(directories) > 0; {
		directory := directories[len(directories)-1]
		directories = directories[:len(directories)-1]
		opened, err := os.Open(filepath.Join(s.root, directory))
		if err != nil {
			continue
		}
		// What cannot be read does not keep the rest from being searched.
		entries, _ := opened.ReadDir(-1)
		opened.Close()
		for _, entry := range entries {
			path := filepath.Join(directory, entry.Name())
			if entry.IsDir() {
				directories = append(directories, path)
			} else if entry.Type().IsRegular() {
				s.paths = append(s.paths, path)
			}
		}
	}
	var err error
	if s.events, err = os.OpenFile(os.Args[3], os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644); err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("listening on http://%s\n", listener.Addr())
	mux := http.NewServeMux()
	mux.HandleFunc("GET /search", s.search)
	srv := &http.Server{Handler: mux}
	go srv.Serve(listener)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	<-signals
	// As long as the others wait for what is under way; then it is told to stop, and answers.
	time.AfterFunc(100*time.Millisecond, func() { end(errShutdown) })
	bound, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if srv.Shutdown(bound) != nil {
		srv.Close()
	}
	s.wg.Wait()
}

func (s *server) search(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	query := r.URL.Query()
	text := query.Get("q")
	if text == "" || len(text) > 200 {
		http.Error(w, "An empty q is found everywhere.", http.StatusBadRequest)
		return
	}
	timeout := time.Second
	if value := query.Get("timeout"); value != "" {
		var err error
		if timeout, err = time.ParseDuration(value); err != nil || timeout <= 0 || timeout > time.Minute {
			http.Error(w, "The timeout is no length of time.", http.StatusBadRequest)
			return
		}
	}
	most := 100
	if value := query.Get("n"); value != "" {
		var err error
		if most, err = strconv.Atoi(value); err != nil || most < 1 || most > 1000 {
			http.Error(w, "The n is no number from 1 to 1000.", http.StatusBadRequest)
			return
		}
	}
	id := r.Header.Get("X-Request-Id")
	if id == "" {
		id = fmt.Sprintf("%x-%d", began.UnixMicro(), s.last.Add(1))
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	defer context.AfterFunc(s.ended, cancel)()
	found := make(chan hit, 64)
	go s.start(ctx, []byte(text), found)
	hits := make([]hit, 0, most)
	ended := "complete"
collect:
	for {
		select {
		case one, ok := <-found:
			if !ok {
				// Who was told to stop has not searched all.
				if ctx.Err() == nil {
					break collect
				}
				found = nil
				continue
			}
			if hits = append(hits, one); len(hits) == most {
				ended = "enough"
				break collect
			}
		case <-ctx.Done():
			switch {
			case s.ended.Err() != nil:
				ended = "shutdown"
			case ctx.Err() == context.DeadlineExceeded:
				ended = "limit"
			default:
				ended = "client_gone"
			}
			break collect
		}
	}
	cancel()
	took := time.Since(began).Microseconds()
	log.Printf("[%s] search %q: %s, %d hits, %d us", id, text, ended, len(hits), took)
	s.wg.Add(1)
	go func() {
		defer s.wg.Done()
		event, _ := json.Marshal(map[string]any{"id": id, "query": text, "ended": ended, "hits": len(hits), "took_us": took})
		s.events.Write(append(event, '\n'))
	}()
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Request-Id", id)
	json.NewEncoder(w).Encode(map[string]any{
		"complete": ended == "complete", "ended": ended, "count": len(hits), "took_us": took, "request_id": id, "query": text, "hits": hits,
	})
}

func (s *server) start(ctx context.Context, text []byte, found chan<- hit) {
	var next atomic.Int64
	var working sync.WaitGroup
	defer close(found)
	defer working.Wait()
	for range s.each {
		select {
		case s.places <- struct{}{}:
		case <-ctx.Done():
			return
		}
		if int(next.Load()) >= len(s.paths) {
			<-s.places
			return
		}
		working.Add(1)
		go func() {
			defer working.Done()
			defer func() { <-s.places }()
			s.work(ctx, text, &next, found)
		}()
	}
}

func (s *server) work(ctx context.Context, text []byte, next *atomic.Int64, found chan<- hit) {
	var buffer bytes.Buffer
	for {
		number := int(next.Add(1)) - 1
		if number >= len(s.paths) || ctx.Err() != nil {
			return
		}
		file, err := os.Open(filepath.Join(s.root, s.paths[number]))
		if err != nil {
			continue
		}
		buffer.Reset()
		_, err = io.Copy(&buffer, io.LimitReader(file, longestFile+1))
		file.Close()
		all := buffer.Bytes()
		if err != nil || len(all) > longestFile || bytes.IndexByte(all[:min(len(all), 1<<13)], 0) >= 0 {
			continue
		}
		for at, line := 0, 1; at < len(all); line++ {
			offset := bytes.Index(all[at:], text)
			if offset < 0 {
				break
			}
			begin := at + bytes.LastIndexByte(all[at:at+offset], '\n') + 1
			end := len(all)
			if newline := bytes.IndexByte(all[at+offset:], '\n'); newline >= 0 {
				end = at + offset + newline
			}
			line += bytes.Count(all[at:begin], []byte{'\n'})
			shown := strings.TrimSpace(strings.ToValidUTF8(string(all[begin:end]), "\ufffd"))
			if utf8.RuneCountInString(shown) > 160 {
				shown = string([]rune(shown)[:160])
			}
			select {
			case found <- hit{s.paths[number], line, shown}:
			case <-ctx.Done():
				return
			}
			at = end + 1
		}
	}
}
