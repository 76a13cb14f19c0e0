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
	// workers is the number of tokens that are delivered at the same time. Each worker makes one request at a time, so that rotations
	// are hardly slowed down.
	workers = 4
	// patchesPerSecond is the rate of patches to pods, for all tokens together. A thousand pods take ten seconds.
	patchesPerSecond = 100
	// retryBase and retryMax bound the back-off of a delivery that is not complete.
	retryBase = time.Second
	retryMax  = 5 * time.Minute
	// reportAfter is the number of attempts after which an incomplete delivery is reported. A brief failure is not worth a status write.
	reportAfter = 3
)

// Job is a token to announce to the pods that mount its Secret.
type Job struct {
	// Owner is the resource that the token belongs to.
	Owner types.NamespacedName
	UID   types.UID
	// Secret is the name of the Secret with the token, in the owner's namespace.
	Secret      string
	Fingerprint string
	// Since is when the token was written to the Secret, or zero if this process did not write it.
	Since time.Time
}

func (j Job) same(other Job) bool {
	return j.Owner == other.Owner && j.UID == other.UID && j.Secret == other.Secret && j.Fingerprint == other.Fingerprint
}

// Outcome is the result of an attempt.
type Outcome struct {
	Fingerprint string
	// Pods is the number of pods that mount the Secret, and Reached how many of them carry the fingerprint.
	Pods, Reached int
	// Unknown reports that the pods could not be listed, so that the numbers mean nothing.
	Unknown bool
	// At is when the attempt ended.
	At time.Time
	// Err is an *Error that says why the delivery is not complete, or nil if it is.
	Err error
}

// Recorder counts what happens, for the metrics.
type Recorder interface {
	// PodReached is called for each pod that was annotated.
	PodReached()
	// PodDeliveryFailed is called when a pod could not be annotated, or when the pods could not be listed.
	PodDeliveryFailed()
	// PodsDelivered is called when the last pod was annotated, with the time since the token was written to the Secret.
	PodsDelivered(after time.Duration)
}

// Options are the options of a Deliverer.
type Options struct {
	// Live lists pods at the API server. A cache of all pods would take far more memory than the rest of the operator.
	Live client.Reader
	// Client patches pods.
	Client   client.Writer
	Recorder Recorder
	// CheckPolicy returns nil if an admission policy lets this process change nothing on the pod but its annotation, fence.ErrUnbound if
	// none does, and otherwise why it is not known. Pods are told only if it returns nil. No function stands for nil.
	CheckPolicy func(ctx context.Context, pod types.NamespacedName) error
	Now         func() time.Time
	// Done is called when a delivery is complete, and with each failure that is worth reporting.
	Done func(ctx context.Context, owner types.NamespacedName, uid types.UID, o Outcome)
	Log  logr.Logger
}

// Deliverer carries out jobs, independently of the reconciler. It is a runnable of the manager and runs in the leader only.
type Deliverer struct {
	Options

	queue   workqueue.TypedRateLimitingInterface[types.NamespacedName]
	limiter *rate.Limiter

	mu   sync.Mutex
	jobs map[types.NamespacedName]Job
}

// New returns a Deliverer.
func New(opts Options) *Deliverer {
	backOff := workqueue.NewTypedItemExponentialFailureRateLimiter[types.NamespacedName](retryBase, retryMax)
	return &Deliverer{
		Options: opts,
		queue:   workqueue.NewTypedRateLimitingQueue[types.NamespacedName](backOff),
		limiter: rate.NewLimiter(patchesPerSecond, patchesPerSecond/workers),
		jobs:    map[types.NamespacedName]Job{},
	}
}

// Deliver starts a job, which replaces an earlier job of the same owner. It does nothing if the same job exists already.
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

// Cancel ends the job of an owner, if it has one.
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

// wanted reports whether the job has been neither replaced nor cancelled.
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

// Start carries out jobs until ctx ends.
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

// next makes one attempt at the next job. It returns false once the queue is shut down.
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
		return true // the next process or the next job reports the outcome
	}
	d.settle(logr.NewContext(ctx, log), job, outcome)
	return true
}

// settle reports the outcome of an attempt, and queues another attempt if the job is not complete.
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
