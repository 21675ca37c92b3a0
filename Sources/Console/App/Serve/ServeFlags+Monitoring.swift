extension ServeFlags {
    static let monitoring = ServeFlagGroup(title: "Monitoring", flags: [
        ServeFlag("listen-metrics-urls", .urls, "", "Where metrics and health alone are served, besides."),
        ServeFlag("metrics", .choice(["basic", "extensive"]), "basic", "extensive is understood, and there is no more of it: /metrics has no histograms of gRPC calls."),
        .idle("enable-pprof", .truth, "false", "this is no Go program; perf and the console's latency view look inside."),
    ])

    static let logging = ServeFlagGroup(title: "Logging", flags: [
        ServeFlag("logger", .choice(["zap"]), "zap", "The form of the log: a JSON object a line, with zap's keys."),
        ServeFlag("log-outputs", .list, "default", "Where it goes: stderr, stdout and paths of files, several separated by commas; default alone is stderr."),
        ServeFlag("log-level", .choice(["debug", "info", "warn", "error", "dpanic", "panic", "fatal"]), "info", "What is logged at least: debug, info, warn or error; "
            + "dpanic, panic and fatal leave only why a node stops."),
        ServeFlag("log-format", .choice(["json"]), "json", "json. (etcd 3.6)"),
        ServeFlag("enable-log-rotation", .truth, "false", "Begin a new file when the one of --log-outputs has its size."),
        ServeFlag("log-rotation-config-json", .text, LogRotation.standard, "maxsize in MB; maxage in days and maxbackups, 0 for no limit; localtime for the names of old "
            + "files; compress cannot be true here."),
    ])

    static let tracing = ServeFlagGroup(title: "Distributed tracing", flags: [
        .idle("experimental-enable-distributed-tracing", .truth, "false", "this node sends no traces."),
        .idle("experimental-distributed-tracing-address", .text, "localhost:4317", "this node sends no traces."),
        .idle("experimental-distributed-tracing-service-name", .text, "etcd", "this node sends no traces."),
        .idle("experimental-distributed-tracing-instance-id", .text, "", "this node sends no traces."),
        .idle("experimental-distributed-tracing-sampling-rate", .number(0...1_000_000), "0", "this node sends no traces."),
    ])
}
