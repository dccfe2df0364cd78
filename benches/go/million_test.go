package benches

import (
	"context"
	"math/rand"
	"runtime"
	"runtime/debug"
	"testing"
)

const million = 1_000_000

// A token, and the right to cancel it.
type node struct {
	ctx    context.Context
	cancel context.CancelFunc
}

func (n node) child() node {
	ctx, cancel := context.WithCancel(n.ctx)
	return node{ctx, cancel}
}

// A root, and all that is below.
type tree struct {
	root node
	rest []node
}

// A root alone, but with room for so many, whose pages are there already.
func bare(room int) *tree {
	rest := make([]node, room)
	root := node{context.Background(), nil}.child()
	for i := range rest {
		rest[i] = root
	}
	clear(rest)
	return &tree{root, rest[:0]}
}

// Fills up to a million children of the root.
func (t *tree) widen() {
	for len(t.rest) < million {
		t.rest = append(t.rest, t.root.child())
	}
}

func wide() *tree {
	t := bare(million)
	t.widen()
	return t
}

// As wide, after two million children were dropped and made again in random order.
func churned() *tree {
	t := wide()
	random := rand.New(rand.NewSource(1))
	for round := 0; round < 4; round++ {
		random.Shuffle(million, func(i, j int) { t.rest[i], t.rest[j] = t.rest[j], t.rest[i] })
		for _, it := range t.rest[million/2:] {
			it.cancel()
		}
		t.rest = t.rest[:million/2]
		t.widen()
	}
	return t
}

func chain() *tree {
	t := bare(million)
	last := t.root
	for i := 0; i < million; i++ {
		last = last.child()
		t.rest = append(t.rest, last)
	}
	return t
}

// Six levels below the root, ten children each: 1,111,111 tokens, built level by level.
func tenAry() *tree {
	t := bare(1_111_110)
	for i := 0; i < 111_111; i++ {
		parent := t.root
		if i > 0 {
			parent = t.rest[i-1]
		}
		for j := 0; j < 10; j++ {
			t.rest = append(t.rest, parent.child())
		}
	}
	return t
}

func cancel(b *testing.B, build func() *tree) {
	for i := 0; i < b.N; i++ {
		b.StopTimer()
		t := build()
		// What it takes to clean up after the building is not part of it.
		runtime.GC()
		b.StartTimer()
		t.root.cancel()
		b.StopTimer()
		if t.rest[len(t.rest)-1].ctx.Err() == nil {
			b.Fatal("not cancelled")
		}
		b.StartTimer()
	}
}

func buildCold(b *testing.B) {
	for i := 0; i < b.N; i++ {
		b.StopTimer()
		t := bare(million)
		// Gives what is free back to the system, and collects before it does.
		debug.FreeOSMemory()
		b.StartTimer()
		t.widen()
		b.StopTimer()
		t.root.cancel()
		b.StartTimer()
	}
}

func dropChildren(b *testing.B) {
	for i := 0; i < b.N; i++ {
		b.StopTimer()
		t := wide()
		runtime.GC()
		b.StartTimer()
		for _, it := range t.rest {
			it.cancel()
		}
	}
}

func liveBytes() float64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return float64(stats.HeapAlloc)
}

// BenchmarkMemory is for `-benchtime 1x`: what is live of a child, and what is live in addition once as many were
// dropped and made again. The process takes more, up to twice as much with the collector as it is set by default.
func BenchmarkMemory(b *testing.B) {
	for i := 0; i < b.N; i++ {
		t := bare(million)
		empty := liveBytes()
		t.widen()
		full := liveBytes()
		for _, it := range t.rest {
			it.cancel()
		}
		clear(t.rest)
		t.rest = t.rest[:0]
		t.widen()
		again := liveBytes()
		runtime.KeepAlive(t)
		b.ReportMetric((full-empty)/million, "first/op")
		b.ReportMetric((again-full)/million, "recycled/op")
	}
}
