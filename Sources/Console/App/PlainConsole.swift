import CNcurses
import Foundation
import UI

/// The console where there is no screen: a line for each thing that happens, and a summary when something changed. For pipes, logs
/// and terminals that cannot place the cursor.
struct PlainConsole {
    let signals: SignalInbox
    let mailbox: Mailbox
    let runner: any CommandRunner

    func run() -> ConsoleLoop.End {
        runner.start()
        runner.perform(.refresh)
        var said = Said()
        while true {
            var descriptors = [mailbox.descriptor, signals.descriptor]
            _ = qd_wait(&descriptors, 2, -1)
            for signal in signals.take() where [.interrupt, .terminate, .hangUp, .quit].contains(signal) { return .signal(signal) }
            for event in mailbox.take() {
                switch event {
                case .playback(let playback): for recorded in playback.events { tell(recorded.event, at: recorded.at, &said) }
                // A recording that was heard to its end.
                case .replay(let replay) where !replay.isPlaying && replay.position >= replay.end: return .quit
                default: tell(event, at: Clock.now(), &said)
                }
            }
        }
    }

    private struct Said {
        var summary = ""
        var isConnected = true
    }

    private func tell(_ event: DataEvent, at now: Moment, _ said: inout Said) {
        switch event {
        case .cluster(let cluster):
            if case .lost(_, let reason) = cluster.connection {
                if said.isConnected { say("no endpoint answers: \(reason)", at: now) }
                said.isConnected = false
            } else {
                said.isConnected = true
            }
            let line = PlainConsole.summary(cluster)
            if line != said.summary { say(line, at: now) }
            said.summary = line
        case .events(let events):
            for event in events { say(PlainConsole.text(of: event.kind), at: event.at) }
        case .notice(let text, let isBad): say(isBad ? "error: \(text)" : text, at: now)
        default: break
        }
    }

    private func say(_ line: String, at moment: Moment) {
        var seconds = time_t(moment.milliseconds / 1_000)
        var parts = tm()
        localtime_r(&seconds, &parts)
        func two(_ n: Int32) -> String { n < 10 ? "0\(n)" : "\(n)" }
        // Not print: a pipe would get it in blocks of 4 KB, long after the fact.
        FileHandle.standardOutput.write(Data("\(two(parts.tm_hour)):\(two(parts.tm_min)):\(two(parts.tm_sec)) \(line)\n".utf8))
    }

    /// Everything that is worth a line when it changes; no revisions, which change all the time.
    static func summary(_ cluster: ClusterState) -> String {
        let members = cluster.members.map { member in
            let state = switch member.health {
            case .starting: "starting"
            case .paused: "paused"
            case .isolated: "cut off"
            case .down: "down"
            case .up: "\(member.role)"
            }
            return "\(member.name) \(member.endpoint) \(state)"
        }
        let leader = cluster.leader.map { "leader \($0.name) term \($0.term ?? 0)" } ?? "no leader"
        return ([leader] + members).joined(separator: " | ")
    }

    static func text(of kind: ClusterEvent.Kind) -> String {
        switch kind {
        case .elected(let leader, let previous, _, let term, let gap, _):
            "\(leader) elected in term \(term)\(previous.map { ", after \($0)" } ?? "")\(gap.map { ", no writes for \($0) ms" } ?? "")"
        case .leaderLost(let previous, let term): "\(previous) no longer leads term \(term)"
        case .campaign(let member, let term, let isPreVote): "\(member) campaigns for term \(term)\(isPreVote ? " (pre-vote)" : "")"
        case .memberDown(let member, let reason, _, let wasLeader): "\(member) down: \(reason)\(wasLeader ? " (it led)" : "")"
        case .memberUp(let member, let after): "\(member) up\(after.map { " after \($0) ms" } ?? "")"
        case .paused(let member): "\(member) paused"
        case .resumed(let member): "\(member) goes on"
        case .isolated(let member): "\(member) cut off"
        case .rejoined(let member): "\(member) reachable again"
        case .transferRequested(let from, let to): "leadership \(from.map { "from \($0) " } ?? "")to \(to) asked for"
        case .alarm(let member, let kind, let isRaised): "alarm \(kind) \(isRaised ? "raised" : "cleared") on \(member)"
        case .compacted(let revision): "compacted to revision \(revision)"
        case .leaseExpired(let lease, let keys): "lease \(String(lease, radix: 16)) expired, \(keys) keys gone"
        case .workload(let isOn): "workload \(isOn ? "on" : "off")"
        case .faultOn(let text): "fault: \(text)"
        case .faultOff(let text): "healed: \(text)"
        case .note(let text, _): text
        }
    }
}
