package check

// pendingMetrics and pendingOptions are used here and made by work that is not merged yet.
var (
	pendingMetrics = []string{
		"realtime_redis_up", "realtime_redis_probe_age_seconds", "realtime_redis_outbox_bytes", "realtime_redis_degraded_seconds_total",
		"realtime_redis_publish_errors_total", "realtime_redis_heals_total", "realtime_presence_cache_total", "realtime_hook_duration_seconds",
	}
	pendingOptions = []string{
		"REALTIME_REDIS_URL", "REALTIME_REDIS_WAIT", "REALTIME_TRUSTED_PROXY", "REALTIME_REDIS_PREFIX", "REALTIME_REDIS_TLS_CA", "REALTIME_DEGRADED",
		"REALTIME_DEGRADED_ROOM", "REALTIME_READY_NEEDS_REDIS", "REALTIME_HOOKS_FAIL", "REALTIME_HOOKS_ADDR", "REALTIME_HOOKS_TIMEOUT", "REALTIME_HOOKS_CONCURRENCY",
	}
)
