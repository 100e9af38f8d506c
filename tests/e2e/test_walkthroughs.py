"""The two walkthroughs of the API specification, through HTTP on the real product."""

from __future__ import annotations

from tests.stack import OWNER, Stack


def test_a_code_job_ends_in_a_pull_request(stack: Stack):
    client, name = stack.new_repository()
    job_id = stack.post_job(
        client,
        "Add a logout button to the header",
        branchName="feature/logout-button",
        title="Logout button",
    )
    job = stack.wait_for(job_id, "completed")

    [pull] = stack.github.pull_requests(OWNER, name)
    assert job["outcome"] == "pull_request"
    assert job["pr_number"] == pull.number
    assert job["pr_url"].endswith(f"/{OWNER}/{name}/pull/{pull.number}")
    assert pull.title == "Logout button"
    assert job_id in (pull.body or "")
    assert stack.github.branches(OWNER, name)["feature/logout-button"] == job["head_sha"]
    assert job["files_changed"] == 1
    assert job["exit_code"] == 0
    assert job["session_id"] == job_id
    assert job["total_cost_usd"] > 0
    assert [message["seq"] for message in stack.messages(job_id)] == list(
        range(1, len(stack.messages(job_id)) + 1)
    )


def test_a_conversation_with_two_turns(stack: Stack):
    client, name = stack.new_repository()
    job_id = stack.post_job(client, "Can you spec me a feature for this client?", jobType="task")
    stack.wait_for(job_id, "waiting_for_user")
    assert job_id in [entry["id"] for entry in stack.call("GET", "/queue")["waiting"]]

    sent = stack.call("POST", f"/jobs/{job_id}/message", {"message": "An analytics dashboard"})
    assert sent["messageSent"] is True
    job = stack.wait_for(job_id, lambda job: job["result"] and "analytics" in job["result"])
    stack.wait_for(job_id, "waiting_for_user")

    assert stack.call("POST", f"/jobs/{job_id}/complete") == {"id": job_id, "status": "completing"}
    job = stack.wait_for(job_id, "completed")
    assert job["outcome"] == "answered"
    assert stack.github.pull_requests(OWNER, name) == []
    assert [m["content"] for m in stack.messages(job_id) if m["type"] == "user_input"] == [
        "An analytics dashboard"
    ]
    refused = stack.call("POST", f"/jobs/{job_id}/message", {"message": "late"}, status=400)
    assert refused == {"error": "Job is not running"}
