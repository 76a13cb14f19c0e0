// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"context"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/time/rate"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	// workers are the tokens that are delivered at the same time; each makes one request after the other, so rotations
	// hardly notice.
	workers = 4
	// patchesPerSecond to pods, of all tokens together. A thousand pods take ten seconds.
	patchesPerSecond = 100
	// retryBase and retryMax bound the back-off of a delivery that is not complete.
	retryBase = time.Second
	retryMax  = 5 * time.Minute
	// reportAfter is the attempt from which on an incomplete delivery is told: a hiccup is worth no status write.
	reportAfter = 3
)

// Job is one token that the pods of a namespace are to be told of.
type Job struct {
	// Owner is the resource that the token belongs to.
	Owner types.NamespacedName
	UID   types.UID
	// Secret that holds the token, in the owner's namespace.
	Secret      string
	Fingerprint string
	// Since is when the Secret got the token; zero if this process did not see it.
	Since time.Time
}

func (j Job) same(other Job) bool {
	return j.Owner == other.Owner && j.UID == other.UID && j.Secret == other.Secret && j.Fingerprint == other.Fingerprint
}

// Outcome is how far a delivery has come.
type Outcome struct {
	Fingerprint string
	// Pods that mount the Secret, and how many of them carry the fingerprint.
	Pods, Reached int
	// Unknown: the pods could not be listed, so the numbers say nothing.
	Unknown bool
	// At is when the attempt ended.
	At time.Time
	// Err says why the delivery is not complete; nil when it is. It is an *Error.
	Err error
}

// Recorder is told what happened, for metrics.
type Recorder interface {
	// PodReached: a pod was told of a new token.
	PodReached()
	// PodDeliveryFailed: a pod could not be told, or pods could not be listed.
	PodDeliveryFailed()
	// PodsDelivered: the last pod was told, so long after the Secret had the token.
	PodsDelivered(after time.Duration)
}

// Options of a Deliverer.
type Options struct {
	// Live lists pods at the API server: a cache of all pods would be far larger than all else that the operator knows.
	Live client.Reader
	// Client patches pods.
	Client   client.Writer
	Recorder Recorder
	Now      func() time.Time
	// Done is called with what is worth reporting.
	Done func(ctx context.Context, owner types.NamespacedName, uid types.UID, o Outcome)
	Log  logr.Logger
}

// Deliverer works jobs off, apart from the passes that look after tokens. It runs on the leader alone, as a runnable of
// the manager.
type Deliverer struct {
	Options

	queue   workqueue.TypedRateLimitingInterface[types.NamespacedName]
	limiter *rate.Limiter

	mu   sync.Mutex
	jobs map[types.NamespacedName]Job
}

// New makes a Deliverer.
func New(opts Options) *Deliverer {
	backOff := workqueue.NewTypedItemExponentialFailureRateLimiter[types.NamespacedName](retryBase, retryMax)
	return &Deliverer{
		Options: opts,
		queue:   workqueue.NewTypedRateLimitingQueue[types.NamespacedName](backOff),
		limiter: rate.NewLimiter(patchesPerSecond, patchesPerSecond/workers),
		jobs:    map[types.NamespacedName]Job{},
	}
}

// Deliver begins a job, in place of an earlier one of the same owner. One that is under way, or backs off, is left alone.
func (d *Deliverer) Deliver(job Job) {
	d.mu.Lock()
	known, there := d.jobs[job.Owner]
	same := there && known.same(job)
	if !same {
		d.jobs[job.Owner] = job
	}
	d.mu.Unlock()
	if !same {
		d.queue.Forget(job.Owner)
		d.queue.Add(job.Owner)
	}
}

// Cancel ends the job of an owner, if there is one.
func (d *Deliverer) Cancel(owner types.NamespacedName) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.jobs, owner)
}

func (d *Deliverer) job(owner types.NamespacedName) (Job, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	job, there := d.jobs[owner]
	return job, there
}

// wanted tells whether nobody has replaced or cancelled the job.
func (d *Deliverer) wanted(job Job) bool {
	now, there := d.job(job.Owner)
	return there && now.same(job)
}

func (d *Deliverer) finish(job Job) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.jobs[job.Owner].same(job) {
		delete(d.jobs, job.Owner)
	}
}

// Start works until the context ends.
func (d *Deliverer) Start(ctx context.Context) error {
	var group sync.WaitGroup
	for range workers {
		group.Go(func() {
			for d.next(ctx) {
			}
		})
	}
	<-ctx.Done()
	d.queue.ShutDown()
	group.Wait()
	return nil
}

// next makes one attempt at one job; false when there will be no more.
func (d *Deliverer) next(ctx context.Context) bool {
	owner, shutdown := d.queue.Get()
	if shutdown {
		return false
	}
	defer d.queue.Done(owner)
	job, there := d.job(owner)
	if !there {
		d.queue.Forget(owner)
		return true
	}
	log := d.Log.WithValues("namespace", owner.Namespace, "name", owner.Name)
	outcome := d.attempt(ctx, job)
	if ctx.Err() != nil || !d.wanted(job) {
		return true // the next process, or the next job, tells how it ended
	}
	d.settle(logr.NewContext(ctx, log), job, outcome)
	return true
}

// settle reports the outcome of an attempt and sees to the next one.
func (d *Deliverer) settle(ctx context.Context, job Job, o Outcome) {
	log := logr.FromContextOrDiscard(ctx)
	if o.Err == nil {
		d.queue.Forget(job.Owner)
		if o.Pods > 0 {
			log.Info("told the pods of the token", "secret", job.Secret, "fingerprint", job.Fingerprint, "pods", o.Pods)
			if !job.Since.IsZero() {
				d.Recorder.PodsDelivered(o.At.Sub(job.Since))
			}
		}
		d.Done(ctx, job.Owner, job.UID, o)
		d.finish(job)
		return
	}
	attempts := d.queue.NumRequeues(job.Owner) + 1
	if attempts > 1 {
		log = log.V(1)
	}
	log.Info("not all pods were told of the token", "secret", job.Secret, "fingerprint", job.Fingerprint, "pods", o.Pods,
		"reached", o.Reached, "error", o.Err.Error(), "attempts", attempts)
	if attempts >= reportAfter || Forbidden(o.Err) {
		d.Done(ctx, job.Owner, job.UID, o)
	}
	d.queue.AddRateLimited(job.Owner)
}
