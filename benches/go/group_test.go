// Groups. What errgroup adds to a WaitGroup is written here in its own few lines: the module golang.org/x/sync would have to be
// downloaded.
package benches

import (
	"context"
	"sync"
	"testing"
	"time"
)

// group is errgroup's, without a limit.
type group struct {
	cancel  context.CancelCauseFunc
	running sync.WaitGroup
	once    sync.Once
	err     error
}

func withContext(parent context.Context) (*group, context.Context) {
	ctx, cancel := context.WithCancelCause(parent)
	return &group{cancel: cancel}, ctx
}

func (g *group) start(f func() error) {
	g.running.Add(1)
	go func() {
		defer g.running.Done()
		if err := f(); err != nil {
			g.once.Do(func() {
				g.err = err
				g.cancel(err)
			})
		}
	}()
}

func (g *group) wait() error {
	g.running.Wait()
	g.cancel(g.err)
	return g.err
}

// A task that ends at once and has a context of its own, counted; by whoever starts it, as a future's first poll is.
func counted(parent context.Context, running *sync.WaitGroup) {
	running.Add(1)
	defer running.Done()
	ctx, cancel := context.WithCancel(parent)
	defer cancel()
	_ = ctx
}

func task(b *testing.B) {
	ctx, stop := root()
	defer stop()
	var running sync.WaitGroup
	for i := 0; i < b.N; i++ {
		counted(ctx, &running)
	}
	running.Wait()
}

func taskTwoThreads(b *testing.B) {
	ctx, stop := root()
	defer stop()
	var running sync.WaitGroup
	twoAtOnce(b, func() { counted(ctx, &running) })
}

// A thousand at a time, each a goroutine.
func taskInGroup(b *testing.B) {
	const atOnce = 1000
	for left := b.N; left > 0; left -= atOnce {
		tasks, _ := withContext(context.Background())
		for i := 0; i < min(left, atOnce); i++ {
			tasks.start(func() error { return nil })
		}
		if tasks.wait() != nil {
			b.Fatal("no error")
		}
	}
}

// From the cancel to the return of wait, of goroutines that wait for it.
func join100k(b *testing.B) {
	const many = 100_000
	var sum time.Duration
	for i := 0; i < b.N; i++ {
		ctx, stop := root()
		tasks, below := withContext(ctx)
		var waiting sync.WaitGroup
		waiting.Add(many)
		for j := 0; j < many; j++ {
			tasks.start(func() error {
				own, cancel := context.WithCancel(below)
				defer cancel()
				waiting.Done()
				<-own.Done()
				return nil
			})
		}
		waiting.Wait()
		start := time.Now()
		stop()
		if tasks.wait() != nil {
			b.Fatal("no error")
		}
		sum += time.Since(start)
	}
	reportMean(b, sum, b.N)
}
