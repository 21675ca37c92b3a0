import Foundation
import Logging
import Synchronization
import Testing
import UI
@testable import quarterdeck

@Suite struct NodeLogTests {
    private static let reader = NodeLogReader(names: [0x8e9e_05c5_2164_694d: "n1", 0x0123_4567_89ab_cdef: "n2"])
    private static let now = Moment(milliseconds: 1)

    private func line(_ text: String) -> LogLine { Self.reader.line(text, of: 7, at: Self.now) }

    @Test func etcdsLines() {
        let text = #"{"level":"info","ts":"2021-11-02T14:30:01.123+0200","logger":"raft","caller":"etcdserver/zap_raft.go:77","msg":"8e9e05c52164694d became leader at term 2"}"#
        #expect(line(text) == LogLine(at: Moment(milliseconds: 1_635_856_201_123), node: 7, level: .info, part: "raft", text: "n1 became leader at term 2"))
        let warning = #"{"level":"warn","ts":"2021-11-02T12:30:01.000Z","caller":"rafthttp/stream.go:424","msg":"lost \"TCP\"","remote-peer-id":"123456789abcdef","n":3,"urls":["a","b"],"o":{"x":"}"}}"#
        #expect(line(warning) == LogLine(at: Moment(milliseconds: 1_635_856_201_000), node: 7, level: .warning, part: "rafthttp",
                                         text: #"lost "TCP"  remote-peer-id=n2  n=3  urls=["a","b"]  o={"x":"}"}"#))
    }

    @Test func ourOwnLines() {
        let text = #"{"level":"info","ts":"2026-11-26T19:12:01.5Z","msg":"became leader in term 3, leader 8e9e05c52164694d","member":"n1","term":"3"}"#
        #expect(line(text) == LogLine(at: Moment(milliseconds: 1_795_720_321_500), node: 7, level: .info, part: "raft", text: "became leader in term 3, leader n1  term=3"))
        #expect(line(#"{"level":"error","ts":"","msg":"snapshot cannot be used","reason":"a\nb"}"#)
            == LogLine(at: Self.now, node: 7, level: .error, part: "snapshot", text: "snapshot cannot be used  reason=a b"))
    }

    @Test(arguments: [("panic: runtime error: index out of range", LogLine.Level.critical), ("Fatal error: Index out of range", .critical), ("{\"level\":\"info\"", .warning), ("{}", .warning), ("hello", .warning)])
    func anythingElseIsShownAsItIs(text: String, level: LogLine.Level) {
        #expect(line(text) == LogLine(at: Self.now, node: 7, level: level, part: "process", text: text))
    }

    @Test func longFieldsAndLinesAreCut() {
        let long = line(#"{"level":"info","msg":"starting","a":"\#(String(repeating: "x", count: 500))","b":"y"}"#)
        #expect(long.text == "starting  a=\(String(repeating: "x", count: 60))…  b=y")
        #expect(line(String(repeating: "z", count: 5_000)).text.count == 400)
    }

    @Test func brokenJSONNeverBreaksTheReader() {
        let text = Array(#"{"level":"warn","ts":"2021-11-02T12:30:01.000Z","msg":"a\u00e9\"b","n":[1,{"x":"]"}]}"#.utf8)
        for end in text.indices { _ = line(String(decoding: text[..<end], as: UTF8.self)) }
        for index in text.indices {
            var broken = text
            broken[index] = UInt8(ascii: "\"")
            _ = line(String(decoding: broken, as: UTF8.self))
        }
    }

    @Test func timesOfAllKinds() {
        #expect(NodeLogReader.moment("1970-01-01T00:00:00Z") == Moment(milliseconds: 0))
        #expect(NodeLogReader.moment("2024-02-29T23:59:59.9999-05:30") == Moment(milliseconds: 1_709_270_999_999))
        #expect(NodeLogReader.moment("1999-12-31T23:59:59.01Z") == Moment(milliseconds: 946_684_799_010))
        for text in ["", "yesterday", "2021-13-01T00:00:00Z", "2021-11-02"] { #expect(NodeLogReader.moment(text) == nil) }
    }

    @Test func aFloodIsCountedNotKept() async {
        let received = Mutex<[[LogLine]]>([])
        let funnel = LogFunnel { lines in received.withLock { $0.append(lines) } }
        for number in 0..<2_000 { funnel.add(LogLine(at: Self.now, node: 1, level: .info, part: "raft", text: "\(number)")) }
        while received.withLock({ $0.isEmpty }) { await Task.yield() }
        let lines = received.withLock { $0[0] }
        #expect(lines.count == 501)
        #expect(lines.first?.text == "0" && lines.last?.text == "1500 log lines dropped: too many at once")
        // And on it goes.
        funnel.add(LogLine(at: Self.now, node: 1, level: .info, part: "raft", text: "later"))
        while received.withLock({ $0.count < 2 }) { await Task.yield() }
        #expect(received.withLock { $0[1].map(\.text) } == ["later"])
    }

    @Test func nodesInsideTheProcessLogThere() async {
        let received = Mutex<[LogLine]>([])
        let funnel = LogFunnel { lines in received.withLock { $0 += lines } }
        var logger = Logger(label: "x") { _ in FunnelLogHandler(funnel, names: [5: "n5"]) }
        logger[metadataKey: "member"] = "n5"
        logger.debug("not shown")
        logger.warning("stepped down", metadata: ["term": "4", "reason": "quorum"])
        while received.withLock({ $0.isEmpty }) { await Task.yield() }
        let lines = received.withLock { $0 }
        #expect(lines.map(\.node) == [5] && lines.map(\.level) == [.warning] && lines.map(\.part) == ["raft"])
        #expect(lines.map(\.text) == ["stepped down  reason=quorum  term=4"])
    }

    @Test func journalTellsWhatHappenedAndTheLineThatDoesTheSame() async {
        let received = Mutex<[LogLine]>([])
        let journal = Journal(LogFunnel { lines in received.withLock { $0 += lines } })
        let (first, second) = (RequestID(number: 1), RequestID(number: 2))
        journal.began(.put(first, key: KeyBytes("a b"), value: Array("it's".utf8), lease: 0, expecting: .modRevision(7)))
        journal.began(.delete(second, key: KeyBytes("-x"), expecting: .none))
        journal.began(.refresh)
        journal.ended(first, .done(revision: 8, detail: nil), microseconds: 2_500, removedCount: 1)
        journal.ended(second, .failed("no leader"), microseconds: 100, removedCount: 0)
        while received.withLock({ $0.count < 2 }) { await Task.yield() }
        #expect(received.withLock { $0.map(\.text) } == [
            #"put: rev 8, 2 ms · etcdctl put 'a b' $'it\x27s'  # if mod_revision is 7"#, "delete: failed: no leader, 0 ms · etcdctl del -- '-x'",
        ])
        #expect(received.withLock { $0.map(\.level) } == [.info, .error])
    }
}
