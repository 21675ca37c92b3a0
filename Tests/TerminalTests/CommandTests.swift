import ArgumentParser
import Base
import Foundation
import Server
import Testing
import UI
@testable import quarterdeck

@Suite struct ServeOptionsTests {
    private func options(_ arguments: [String], _ environment: [String: String] = [:]) throws -> ServeOptions {
        let command = try #require(ServeCommand.command(of: ["serve"] + arguments))
        return try #require(try command.options(environment: environment))
    }

    @Test func defaultsAreThoseOfEtcd() throws {
        let options = try options([])
        #expect(options.name == "default")
        #expect(options.dataDirectory == "default.etcd")
        #expect(options.listenClientURLs.map(\.description) == ["http://localhost:2379"])
        #expect(options.initialCluster == [InitialMember(name: "default", peerURLs: [try ServiceURL(parsing: "http://localhost:2380")])])
        #expect(options.heartbeatIntervalMilliseconds == 100 && options.electionTimeoutMilliseconds == 1_000)
        #expect(options.maxRequestBytes == 1_572_864 && options.maxTxnOps == 128)
        #expect(options.authToken == "simple" && options.authTokenTTLSeconds == 300 && options.bcryptCost == 10)
        #expect(options.initialClusterState == .new && options.initialClusterToken == "etcd-cluster")
    }

    @Test func optionsAndEnvironmentWinOverDefaults() throws {
        let environment = ["ETCD_HEARTBEAT_INTERVAL": "50", "ETCD_LOG_LEVEL": "", "ETCD_NAME": "", "ETCD_BCRYPT_COST": "5", "ETCD_AUTH_TOKEN": "jwt,sign-method=HS256"]
        let options = try options(["--name", "flag", "--max-txn-ops=9"], environment)
        #expect(options.name == "flag")
        #expect(options.heartbeatIntervalMilliseconds == 50)
        #expect(options.maxTxnOps == 9)
        #expect(options.log.level == .info)
        #expect(options.bcryptCost == 5 && options.authToken == "jwt,sign-method=HS256")
        #expect(options.warnings.isEmpty)
    }

    @Test func whatIsSaidTwiceIsAConflictAndWhatNobodyKnowsAWarning() throws {
        for arguments in [["--name", "flag"], ["--name=flag"]] {
            let failure = try #require(throws: CommandFailure.self) { try options(arguments, ["ETCD_NAME": "env"]) }
            #expect(failure.description.contains("conflicting environment variable ETCD_NAME is shadowed by corresponding command-line flag"))
        }
        let odd = try options([], ["ETCD_VERSION": "3.5", "ETCD_NOBODY_KNOWS": "x", "ETCDCTL_API": "3", "ETCD_NAME": "n", "ETCD_SUPERVISED": "1"])
        #expect(odd.warnings == ["unrecognized environment variable ETCD_NOBODY_KNOWS", "unrecognized environment variable ETCD_SUPERVISED",
                                 "cannot set special environment variable ETCD_VERSION"] && odd.name == "n" && odd.console == nil)
    }

    @Test func aFileLeavesNoSayToTheOthers() throws {
        let path = NSTemporaryDirectory() + "qd-config-\(UUID().uuidString).yaml"
        try Data("""
            # as etcd's sample
            name: 'from-file'
            data-dir: /tmp/x
            heartbeat-interval: 50
            listen-client-urls: http://127.0.0.1:4001,http://127.0.0.1:4002
            strict-reconfig-check: false
            auto-compaction-mode: periodic
            auto-compaction-retention: "1"
            log-level:
            quota-backend-bytes: 1000
            frobnicate: yes
            client-transport-security:
              cert-file:
            """.utf8).write(to: URL(fileURLWithPath: path))
        defer { try? FileManager.default.removeItem(atPath: path) }
        for (arguments, environment) in [(["--config-file", path, "--name", "flag", "--max-txn-ops", "9"], ["ETCD_NAME": "env"]),
                                         ([], ["ETCD_CONFIG_FILE": path, "ETCD_MAX_TXN_OPS": "8"])] {
            let options = try options(arguments, environment)
            #expect(options.name == "from-file" && options.dataDirectory == "/tmp/x" && options.heartbeatIntervalMilliseconds == 50)
            #expect(options.listenClientURLs.map(\.port) == [4_001, 4_002] && options.advertiseClientURLs.map(\.description) == ["http://localhost:2379"])
            #expect(!options.checksReconfiguration && options.maxTxnOps == 128 && options.log.level == .info && options.quotaBackendBytes == 1_000)
            #expect(options.autoCompaction == .periodic(.seconds(3_600)))
            #expect(options.warnings[0].contains("will be ignored if provided") && options.warnings.filter { $0.contains("frobnicate") }.count == 1, "\(options.warnings)")
        }
    }

    @Test func httpIsForWhomTheFlagsSay() throws {
        let standard = try options([])
        #expect(standard.http == HTTPAccess() && standard.http.origins == ["*"] && standard.http.hosts == ["*"] && standard.http.servesGateway && standard.listenClientHTTPURLs == [])
        let flags = try options(["--cors", "http://a.example, https://b:8080", "--host-whitelist=a,,b", "--enable-grpc-gateway=false",
                                 "--listen-client-http-urls", "http://127.0.0.1:1,https://127.0.0.1:2"])
        #expect(flags.http.origins == ["http://a.example", "https://b:8080"] && flags.http.hosts == ["a", "", "b"] && !flags.http.servesGateway)
        #expect(flags.listenClientHTTPURLs.map(\.description) == ["http://127.0.0.1:1", "https://127.0.0.1:2"])
        let variables = try options([], ["ETCD_CORS": "http://c", "ETCD_HOST_WHITELIST": "c", "ETCD_ENABLE_GRPC_GATEWAY": "0", "ETCD_LISTEN_CLIENT_HTTP_URLS": "http://c:1"])
        #expect(variables.http.origins == ["http://c"] && variables.http.hosts == ["c"] && !variables.http.servesGateway && variables.listenClientHTTPURLs.count == 1)
        #expect(variables.warnings == [])
        let path = NSTemporaryDirectory() + "qd-config-\(UUID().uuidString).yaml"
        try Data("cors: http://d\nhost-whitelist: d\nenable-grpc-gateway: false\nlisten-client-http-urls: http://d:1\n".utf8).write(to: URL(fileURLWithPath: path))
        defer { try? FileManager.default.removeItem(atPath: path) }
        let file = try options(["--config-file", path])
        #expect(file.http.origins == ["http://d"] && file.http.hosts == ["d"] && !file.http.servesGateway && file.listenClientHTTPURLs.count == 1 && file.warnings.count == 1)
        #expect(try options(["--enable-grpc-gateway", "--name", "x"]).http.servesGateway)
        for (arguments, words) in [(["--cors", "a.example"], "--cors: \"a.example\" is no origin"), (["--cors", "http://a/b"], "is no origin"), (["--cors", "http://a,*"], "\"*\" is no origin"),
                                   (["--cors", "http://a,"], "\"\" is no origin"), (["--enable-grpc-gateway=maybe"], "expected true or false"),
                                   (["--listen-client-http-urls", "d:1"], "--listen-client-http-urls: URL \"d:1\"")] {
            #expect(try #require(throws: CommandFailure.self) { try options(arguments) }.description.contains(words), "\(arguments)")
        }
    }

    @Test(arguments: [("name: [", "not YAML"), ("- a", "name: value"), ("name: {a: b}", "name: expected a value"), ("heartbeat-interval: soon", "--heartbeat-interval soon")])
    func wrongFilesAreNamed(_ text: String, _ mention: String) throws {
        let path = NSTemporaryDirectory() + "qd-config-\(UUID().uuidString).yaml"
        try Data(text.utf8).write(to: URL(fileURLWithPath: path))
        defer { try? FileManager.default.removeItem(atPath: path) }
        let failure = try #require(throws: CommandFailure.self) { try options(["--config-file", path]) }
        #expect(failure.description.contains(mention) && !failure.description.contains("\n"), "\(failure.description)")
        let missing = try #require(throws: CommandFailure.self) { try options(["--config-file", path + ".none"]) }
        #expect(missing.description.contains(path))
    }

    @Test func discoveryStandsForTheInitialCluster() throws {
        let options = try options(["--name", "a", "--discovery-token", "T", "--discovery-endpoints", "h:1,http://h:2", "--discovery-user", "u:p"])
        #expect(options.discovery?.token == "T" && options.discovery?.connection.endpoints == ["h:1", "http://h:2"])
        #expect(options.discovery?.connection.user == "u" && options.discovery?.connection.password == "p")
        #expect(options.initialClusterToken == "T" && options.initialCluster.map(\.name) == ["a"])
        for (arguments, mention) in [(["--discovery-token", "T"], "both --discovery-token and --discovery-endpoints"), (["--discovery-token", "T", "--discovery-endpoints", "h:1,"], "empty endpoints"),
                                     (["--discovery-token", "T", "--discovery-endpoints", "h:1", "--initial-cluster", "default=http://localhost:2380"], "multiple discovery or bootstrap flags")] {
            let failure = try #require(throws: CommandFailure.self) { try self.options(arguments) }
            #expect(failure.description.contains(mention))
        }
    }

    @Test func recordsOfTheDNSBecomeMembers() throws {
        let addresses = ["a.test": Set(["10.0.0.1"]), "b.test": ["10.0.0.2"], "mine.test": ["10.0.0.3", "fd00::3"], "10.0.0.3": ["10.0.0.3"]]
        func members(_ records: [(String, Int)], _ scheme: String) -> ([String], String?) {
            let found = RecordDiscovery.members(of: records.map { .init(host: $0.0, port: $0.1) }, scheme: scheme, service: "etcd-server", name: "me",
                                                own: [NodeURL(host: "10.0.0.3", port: 2380)], addresses: { addresses[$0] ?? [] })
            return (found.members.map { "\($0.name)=\($0.url)" }, found.problem)
        }
        let all = [("a.test", 2380), ("mine.test", 2380), ("b.test", 2380), ("mine.test", 9999)]
        #expect(members(all, "http") == (["0=http://a.test:2380", "me=http://mine.test:2380", "1=http://b.test:2380", "2=http://mine.test:9999"], nil))
        let wrong = members(all + [("nowhere.test", 1)], "https")
        #expect(wrong.0 == ["0=https://a.test:2380", "1=https://b.test:2380", "2=https://mine.test:9999"] && wrong.1?.contains("no address") == true)
        #expect(members([("mine.test", 2380)], "https").1?.contains("scheme mismatch with expected peer http://10.0.0.3:2380") == true)
        #expect(try options(["--discovery-srv", "d", "--discovery-srv-name", "x", "--discovery-srv-resolver", "127.0.0.1:53"]).records
            == RecordDiscovery(domain: "d", serviceName: "x", server: .init(host: "127.0.0.1", port: 53)))
        #expect(throws: CommandFailure.self) { try options(["--discovery-srv", "d", "--initial-cluster", "default=http://localhost:2380"]) }
    }

    @Test func retentionIsReadAsEtcdReadsIt() throws {
        #expect(try options([]).autoCompaction == .off)
        for (mode, retention, expected) in [("periodic", "1h", AutoCompaction.periodic(.seconds(3_600))), ("periodic", "5m", .periodic(.seconds(300))),
                                            ("periodic", "2", .periodic(.seconds(7_200))), ("revision", "1000", .revisions(1_000)), ("periodic", "0", .off),
                                            ("revision", "0", .off), ("periodic", "1.5s", .periodic(.milliseconds(1_500)))] {
            #expect(try options(["--auto-compaction-mode", mode, "--auto-compaction-retention", retention]).autoCompaction == expected)
        }
        for (mode, retention, mention) in [("periodic", "soon", "CompactionRetention"), ("revision", "1h", "number of revisions"), ("sometimes", "1", "auto-compaction-mode")] {
            let failure = try #require(throws: CommandFailure.self) { try options(["--auto-compaction-mode", mode, "--auto-compaction-retention", retention]) }
            #expect(failure.description.contains(mention))
        }
    }

    @Test func initialClusterIsReadInItsOrder() throws {
        let options = try options(["--name", "b", "--initial-advertise-peer-urls", "http://10.0.0.2:2380",
                                   "--initial-cluster", "c=http://10.0.0.3:2380,b=http://10.0.0.2:2380,a=http://[::1]:2380"])
        #expect(options.initialCluster.map(\.name) == ["c", "b", "a"])
        #expect(options.initialCluster[2].peerURLs[0].host == "::1")
        #expect(options.initialCluster[2].peerURLs[0].description == "http://[::1]:2380")
    }

    @Test(arguments: [
        (["--heartbeat-interval", "0"], "--heartbeat-interval"), (["--heartbeat-interval", "300"], "5 times"), (["--snapshot-count=-1"], "--snapshot-count"),
        (["--listen-peer-urls", "localhost:2380"], "http://host:port"), (["--listen-peer-urls", "http://localhost"], "port"),
        (["--listen-peer-urls", "http://h:1/path"], "path"), (["--initial-cluster", "nonsense"], "name=url"),
        (["--initial-cluster", "x=http://h:1"], "couldn't find local name"),
        (["--initial-cluster", "default=http://other:2380"], "--initial-advertise-peer-urls"),
        (["--initial-cluster-state", "old"], "new or existing"),
    ])
    func wrongOptionsNameTheOption(_ arguments: [String], _ mention: String) throws {
        let failure = try #require(throws: CommandFailure.self) { try options(arguments) }
        #expect(failure.description.contains(mention))
        #expect(!failure.description.contains("\n"))
        #expect(failure.status == 64)
    }

    @Test func badVariableIsNamedLikeItsOption() throws {
        let failure = try #require(throws: CommandFailure.self) { try options([], ["ETCD_ELECTION_TIMEOUT": "soon"]) }
        #expect(failure.description.contains("--election-timeout soon"))
    }
}

@Suite struct AttachOptionsTests {
    private func options(_ arguments: [String], _ environment: [String: String] = [:]) throws -> ConnectionOptions {
        let command = try #require(try Quarterdeck.parseAsRoot(["attach"] + arguments) as? AttachCommand)
        return try command.connectionOptions(environment: environment)
    }

    @Test func endpointsComeFromArgumentsThenFlagThenEnvironmentThenDefault() throws {
        #expect(try options(["a:1", "b:2,c:3"], ["ETCDCTL_ENDPOINTS": "x:9"]).endpoints == ["a:1", "b:2", "c:3"])
        #expect(try options(["--endpoints", "a:1,b:2"], ["ETCDCTL_ENDPOINTS": "x:9"]).endpoints == ["a:1", "b:2"])
        #expect(try options([], ["ETCDCTL_ENDPOINTS": "http://x:9, y:8"]).endpoints == ["http://x:9", "y:8"])
        #expect(try options([]).endpoints == ["127.0.0.1:2379"])
    }

    @Test func userAndPasswordAreReadAsEtcdctlDoes() throws {
        let joined = try options(["--user", "root:se:cret"])
        #expect(joined.user == "root" && joined.password == "se:cret")
        let split = try options(["--user", "root:x", "--password", "y"])
        #expect(split.user == "root:x" && split.password == "y")
        let variables = try options([], ["ETCDCTL_USER": "u:p"])
        #expect(variables.user == "u" && variables.password == "p")
    }

    @Test func timesAreReadAsGoWritesThem() throws {
        let options = try options(["--dial-timeout", "1m30s"], ["ETCDCTL_COMMAND_TIMEOUT": "250ms"])
        #expect(options.dialTimeoutNanoseconds == 90_000_000_000)
        #expect(options.commandTimeoutNanoseconds == 250_000_000)
    }

    @Test func tlsIsUsedWhereACertificateOrAuthorityIsGiven() throws {
        #expect(try !options([]).usesTLS)
        #expect(try options(["--insecure-skip-tls-verify"]).usesTLS)
        #expect(try options([], ["ETCDCTL_INSECURE_SKIP_TLS_VERIFY": "true"]).skipsVerification)
    }

    @Test(arguments: [("300ms", 300_000_000), ("1.5s", 1_500_000_000), ("2h", 7_200_000_000_000), ("0", 0), ("1h0m5us", 3_600_000_005_000)] as [(String, Int64)])
    func durationsOfGo(_ text: String, _ nanoseconds: Int64) { #expect(GoDuration(argument: text)?.nanoseconds == nanoseconds) }

    @Test(arguments: ["", "5", "s", "1x", "-1s", "1s2"])
    func whatIsNoDuration(_ text: String) { #expect(GoDuration(argument: text) == nil) }
}

@Suite struct ThemeLibraryTests {
    @Test func filesAreFoundByNameAndTheFirstPlaceWins() throws {
        let root = NSTemporaryDirectory() + "qd-themes-\(UUID().uuidString)"
        for place in ["a", "b"] {
            try FileManager.default.createDirectory(atPath: "\(root)/\(place)", withIntermediateDirectories: true)
            try Data("base: dark\npalette:\n  x: \"#00000\(place == "a" ? 1 : 2)\"\nslots:\n  text: x\n".utf8).write(to: URL(fileURLWithPath: "\(root)/\(place)/mine.yaml"))
        }
        defer { try? FileManager.default.removeItem(atPath: root) }
        let library = ThemeLibrary(directories: ["\(root)/a", "\(root)/b", "\(root)/missing"])
        #expect(library.names() == ["quarterdeck-dark", "mine"])
        #expect(try library.theme(named: "mine").get().resolve(.text) == RGB(0, 0, 1))
        #expect(try library.theme(named: "quarterdeck-dark").get() == .quarterdeckDark)
        #expect(throws: ThemeFailure.self) { try library.theme(named: "../a/mine").get() }
    }

    @Test(arguments: [
        ("just text", "not a mapping"), ("a: [", "YAML"), ("base: sepia", "base"), ("colours: {}", "colours"), ("slots: [a]", "slots"),
        ("slots:\n  nothing: \"#000000\"", "nothing"), ("slots:\n  text: missing", "missing"), ("gradients:\n  load: [\"#000000\"]", "two colours"),
        ("palette: &a\n  x: \"#000000\"\nslots: *a", "*a: aliases"), ("slots:\n  text: {a: b}", "slots.text"),
    ])
    func wrongFilesSayWhatIsWrongInOneLine(_ text: String, _ mention: String) throws {
        let failure = try #require(throws: ThemeFailure.self) { try ThemeLibrary.parse(text, name: "x") }
        #expect(failure.description.contains(mention))
        #expect(!failure.description.contains("\n"))
    }

    @Test func gradientsMayBeLists() throws {
        let theme = try ThemeLibrary.parse("gradients:\n  load: [\"#000000\", \"#ffffff\"]\n", name: "x")
        #expect(theme.resolve(Color.gradient(.load, 100)) == RGB(255, 255, 255))
    }
}

@Suite struct FileTests {
    @Test func editorsFinalLineEndIsNotAChange() {
        #expect(ExternalEditor.result(before: Array("abc".utf8), after: Array("abc\n".utf8)) == .unchanged)
        #expect(ExternalEditor.result(before: Array("abc".utf8), after: Array("abd\n".utf8)) == .edited(Array("abd".utf8)))
        #expect(ExternalEditor.result(before: Array("abc\n".utf8), after: Array("abd\n".utf8)) == .edited(Array("abd\n".utf8)))
        #expect(ExternalEditor.result(before: Array("abc".utf8), after: Array("abc\n\n".utf8)) == .edited(Array("abc\n\n".utf8)))
        #expect(ExternalEditor.result(before: [], after: [10]) == .unchanged)
        #expect(ExternalEditor.result(before: [0, 255], after: [0, 255]) == .unchanged)
    }

    @Test func editorComesFromVisualThenEditorThenVi() {
        #expect(ExternalEditor.command(["VISUAL": "a -w", "EDITOR": "b"]) == "a -w")
        #expect(ExternalEditor.command(["VISUAL": " ", "EDITOR": "b"]) == "b")
        #expect(ExternalEditor.command([:]) == "vi")
    }

    @Test func clipboardRefusesWhatTerminalsDrop() {
        #expect(Clipboard.sequence(for: "hi") == "\u{1b}]52;c;aGk=\u{7}")
        #expect(Clipboard.sequence(for: String(repeating: "x", count: Clipboard.limitBytes)) != nil)
        #expect(Clipboard.sequence(for: String(repeating: "x", count: Clipboard.limitBytes + 1)) == nil)
    }

    @Test func watchEventsBecomeOneJSONLineEach() throws {
        let put = WatchEvent(at: Moment(milliseconds: 1_700_000_000_123), revision: 7, isDelete: false, key: KeyBytes("a\"\\\n\u{1}ü"), value: [0xff, 0xfe],
                             previousValue: Array("old".utf8), version: 3, lease: 0x7a31)
        let delete = WatchEvent(at: Moment(milliseconds: 0), revision: 8, isDelete: true, key: KeyBytes("k"), value: [], previousValue: nil, version: 0, lease: 0)
        var text: [UInt8] = []
        EventLines.append(put, to: &text)
        EventLines.append(delete, to: &text)
        let lines = String(decoding: text, as: UTF8.self).split(separator: "\n")
        #expect(lines.count == 2)
        let first = try #require(try JSONSerialization.jsonObject(with: Data(lines[0].utf8)) as? [String: Any])
        #expect(first["key"] as? String == "a\"\\\n\u{1}ü")
        #expect(first["value_base64"] as? String == "//4=")
        #expect(first["prev_value"] as? String == "old")
        #expect(first["time"] as? String == "2023-11-14T22:13:20.123Z")
        #expect(first["lease"] as? String == "7a31")
        let second = try #require(try JSONSerialization.jsonObject(with: Data(lines[1].utf8)) as? [String: Any])
        #expect(second["type"] as? String == "DELETE" && second["value"] == nil && second["time"] as? String == "1970-01-01T00:00:00.000Z")
    }

    @Test func privateFilesAreNeverOverwritten() throws {
        let path = NSTemporaryDirectory() + "qd-private-\(UUID().uuidString)"
        defer { try? FileManager.default.removeItem(atPath: path) }
        try PrivateFile.create(path, [1, 2, 3])
        let failure = #expect(throws: FileFailure.self) { try PrivateFile.create(path, [4]) }
        #expect(failure?.number == EEXIST)
        #expect(FileManager.default.contents(atPath: path) == Data([1, 2, 3]))
        let mode = try FileManager.default.attributesOfItem(atPath: path)[.posixPermissions] as? Int
        #expect(mode == 0o600)
    }
}

@Suite struct ReadHelperTests {
    @Test func midpointLiesBetween() {
        for (low, high) in [("a", "b"), ("abc", "abd"), ("", "z"), ("/x/1", "/x/2"), ("key0000001", "key9999999")] {
            let middle = ClusterSession.midpoint(Array(low.utf8), Array(high.utf8))
            guard let middle else { Issue.record("no midpoint of \(low) and \(high)"); continue }
            #expect(KeyBytes(low) < KeyBytes(middle) && KeyBytes(middle) < KeyBytes(high))
        }
        #expect(ClusterSession.midpoint([1, 2], [1, 2]) == nil)
    }

    @Test func halvingAlwaysEnds() {
        var low: [UInt8] = [], steps = 0
        let high = Array("zzzz".utf8)
        while let middle = ClusterSession.midpoint(low, high), steps < 1_000 {
            #expect(KeyBytes(low) < KeyBytes(middle))
            low = middle
            steps += 1
        }
        #expect(steps < 100)
    }

    @Test func searchFoldsCaseUnlessTheNeedleHasCapitals() {
        func found(_ key: String, _ needle: String) -> Bool { ClusterSession.contains(Array(key.utf8), Array(needle.utf8)) }
        #expect(found("/App/Web", "web") && found("/app/web", "web") && found("/app/Web", "Web"))
        #expect(!found("/app/web", "Web") && !found("we", "web"))
    }

    @Test func fsyncPercentileIsInterpolatedAsPrometheusDoes() {
        let text = """
            # HELP x
            etcd_disk_wal_fsync_duration_seconds_bucket{le="0.001"} 50
            etcd_disk_wal_fsync_duration_seconds_bucket{le="0.002"} 100
            etcd_disk_wal_fsync_duration_seconds_bucket{le="+Inf"} 100
            process_start_time_seconds 1.7e+09
            """
        let metrics = MetricsProbe.Metrics(text)
        #expect(metrics.fsyncP99Microseconds == 1_980)
        #expect(metrics.startedAt == Moment(milliseconds: 1_700_000_000_000))
        #expect(MetricsProbe.Metrics("").fsyncP99Microseconds == nil)
    }
}

@Suite struct MailboxTests {
    @Test func oldStatesAreReplacedAndTheRestKeepsItsOrder() {
        let mailbox = Mailbox()
        func state(_ name: String) -> DataEvent { .cluster(ClusterState(name: name, kind: .attached)) }
        mailbox.post(.notice("one", isBad: false))
        mailbox.post(state("old"))
        mailbox.post(.notice("two", isBad: false))
        mailbox.post(state("new"))
        let found = mailbox.take().map { event -> String in
            switch event {
            case .notice(let text, _): text
            case .cluster(let cluster): cluster.name
            default: "?"
            }
        }
        #expect(found == ["one", "new", "two"])
        #expect(mailbox.take().isEmpty)
    }

    @Test func descriptorIsReadableExactlyWhileSomethingWaits() {
        let mailbox = Mailbox()
        func isReadable() -> Bool {
            var polled = pollfd(fd: mailbox.descriptor, events: Int16(POLLIN), revents: 0)
            return poll(&polled, 1, 0) == 1
        }
        #expect(!isReadable())
        for _ in 0..<100 { mailbox.post(.notice("x", isBad: false)) }
        #expect(isReadable())
        #expect(mailbox.take().count == 100)
        #expect(!isReadable())
        mailbox.post(.notice("y", isBad: false))
        #expect(isReadable())
    }
}
