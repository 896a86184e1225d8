-- Queries over the table of the Collector's ClickHouse exporter. A line may come twice: `LIMIT 1 BY` its
-- uid, or count distinct uids.

-- name: findings of the last day, the most serious first
SELECT
    Timestamp,
    SeverityText AS level,
    ResourceAttributes['host.name'] AS host,
    Body,
    LogAttributes['process.executable.path'] AS image,
    LogAttributes['process.command_line'] AS command_line,
    LogAttributes['process.user.name'] AS user,
    LogAttributes['bpfwatch.session.handle.interface'] AS interface,
    LogAttributes['bpfwatch.scope.kind'] AS scope,
    LogAttributes['log.record.uid'] AS uid
FROM otel_logs
WHERE ServiceName = 'bpfwatch'
  AND LogAttributes['bpfwatch.type'] = 'finding'
  AND Timestamp > now() - INTERVAL 1 DAY
ORDER BY SeverityNumber DESC, Timestamp DESC
LIMIT 1 BY uid
LIMIT 200;

-- name: captures by rule and level
SELECT
    LogAttributes['security_rule.name'] AS rule,
    LogAttributes['bpfwatch.rule.level'] AS level,
    uniqExact(LogAttributes['log.record.uid']) AS findings,
    uniqExact(ResourceAttributes['host.name']) AS hosts,
    max(Timestamp) AS last
FROM otel_logs
WHERE ServiceName = 'bpfwatch'
  AND LogAttributes['bpfwatch.type'] = 'finding'
  AND Timestamp > now() - INTERVAL 7 DAY
GROUP BY rule, level
ORDER BY findings DESC;

-- name: programs that capture on one host alone
SELECT
    LogAttributes['process.executable.path'] AS image,
    any(ResourceAttributes['host.name']) AS host,
    uniqExact(LogAttributes['log.record.uid']) AS findings
FROM otel_logs
WHERE ServiceName = 'bpfwatch'
  AND LogAttributes['bpfwatch.type'] = 'finding'
  AND Timestamp > now() - INTERVAL 30 DAY
GROUP BY image
HAVING uniqExact(ResourceAttributes['host.name']) = 1
ORDER BY findings DESC
LIMIT 100;

-- name: captures in containers
SELECT
    LogAttributes['container.image.name'] AS container_image,
    LogAttributes['bpfwatch.scope.pod'] AS pod,
    LogAttributes['process.executable.path'] AS image,
    uniqExact(LogAttributes['log.record.uid']) AS findings
FROM otel_logs
WHERE ServiceName = 'bpfwatch'
  AND LogAttributes['bpfwatch.type'] = 'finding'
  AND LogAttributes['container.id'] != ''
  AND Timestamp > now() - INTERVAL 7 DAY
GROUP BY container_image, pod, image
ORDER BY findings DESC;

-- name: captures that are still open
SELECT
    ResourceAttributes['host.name'] AS host,
    Timestamp AS since,
    SeverityText AS level,
    Body
FROM otel_logs
WHERE ServiceName = 'bpfwatch'
  AND LogAttributes['bpfwatch.type'] = 'finding'
  AND LogAttributes['bpfwatch.session.id'] != ''
  AND Timestamp > now() - INTERVAL 7 DAY
  AND LogAttributes['log.record.uid'] NOT IN (
      SELECT LogAttributes['bpfwatch.finding']
      FROM otel_logs
      WHERE ServiceName = 'bpfwatch'
        AND LogAttributes['bpfwatch.type'] = 'closed'
        AND Timestamp > now() - INTERVAL 7 DAY
  )
ORDER BY since DESC
LIMIT 1 BY LogAttributes['log.record.uid'];

-- name: silent hosts: no heartbeat for a quarter of an hour
SELECT
    ResourceAttributes['host.name'] AS host,
    max(Timestamp) AS last_heartbeat,
    argMax(LogAttributes['bpfwatch.version'], Timestamp) AS version
FROM otel_logs
WHERE ServiceName = 'bpfwatch'
  AND LogAttributes['bpfwatch.type'] = 'heartbeat'
  AND Timestamp > now() - INTERVAL 7 DAY
GROUP BY host
HAVING last_heartbeat < now() - INTERVAL 15 MINUTE
ORDER BY last_heartbeat;

-- name: what never arrived: numbers that are missing in a stream
SELECT
    ResourceAttributes['host.name'] AS host,
    ResourceAttributes['bpfwatch.stream'] AS stream,
    max(toUInt64OrZero(LogAttributes['bpfwatch.seq'])) AS last,
    min(toUInt64OrZero(LogAttributes['bpfwatch.seq'])) AS first,
    last - first + 1 - uniqExact(LogAttributes['bpfwatch.seq']) AS missing
FROM otel_logs
WHERE ServiceName = 'bpfwatch'
  AND Timestamp > now() - INTERVAL 1 DAY
GROUP BY host, stream
HAVING missing > 0
ORDER BY missing DESC;

-- name: what bpfwatch itself missed or had to drop
SELECT
    Timestamp,
    ResourceAttributes['host.name'] AS host,
    LogAttributes['bpfwatch.sensor'] AS sensor,
    LogAttributes['bpfwatch.count'] AS count,
    LogAttributes['bpfwatch.why'] AS why
FROM otel_logs
WHERE ServiceName = 'bpfwatch'
  AND LogAttributes['bpfwatch.type'] = 'lost'
  AND Timestamp > now() - INTERVAL 7 DAY
ORDER BY Timestamp DESC
LIMIT 1 BY LogAttributes['log.record.uid'];
