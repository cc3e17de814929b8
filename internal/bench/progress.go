package bench

import (
	"io"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// progress draws a bar per phase if its writer is a terminal, else nothing.
type progress struct{ bars *mpb.Progress }

func newProgress(w io.Writer) *progress { return &progress{mpb.New(mpb.WithOutput(w))} }

// bar is one phase.
type bar struct{ *mpb.Bar }

func (p *progress) start(name string, total int64) bar {
	return bar{p.bars.AddBar(total,
		mpb.PrependDecorators(decor.Name(name, decor.WCSyncSpaceR)),
		mpb.AppendDecorators(decor.Percentage(decor.WCSyncSpace)))}
}

// set moves the bar.
func (b bar) set(n int64) { b.SetCurrent(n) }

// end leaves the bar where it is.
func (b bar) end() { b.Abort(false) }

// wait ends the drawing; all bars must have ended.
func (p *progress) wait() { p.bars.Wait() }
